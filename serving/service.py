"""One run of the service: Ray, the ingress, the application, until told to stop; then all of it is gone.

1. check secrets, addresses and port     before anything is started
2. choose the ingress                    Ray Serve reads it from the environment when it is imported
3. start Ray here, or join a cluster
4. start Serve and deploy
5. wait until HTTP answers, say so once, wait for SIGTERM or SIGINT
6. stop what was started
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from types import FrameType
from typing import Any

import httpx

from serving import ingress
from serving.access import check_access
from serving.errors import ServingError
from serving.online_store import open_online_store
from serving.settings import ServingSettings, read_salts

ANSWER_WITHIN_S = 60


def run(settings: ServingSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises ServingError (or its subclass that says it) if the service cannot start.
    """
    read_salts(settings)
    check_access(settings)
    open_online_store(settings.online_store_url, readonly=True).close()  # checks the address, reaches nothing
    port = ingress.check_port(settings.host, settings.port)
    grpc_port = None if settings.grpc_port is None else ingress.check_port(settings.host, settings.grpc_port)
    chosen, why_not = ingress.choose(settings)
    if why_not:
        _say(why_not, sys.stderr)
    ingress.configure(chosen, settings)
    own_output = sys.stdout  # holds one line; whatever Ray prints goes to stderr
    # On the machines of a cluster there is no wrapper of ours, and a proxy outlives nobody who starts it there.
    tie = ingress.tied_haproxy() if chosen == "haproxy" and not settings.ray_address else nullcontext()
    with redirect_stdout(sys.stderr), _stoppable() as told, tie, _ray(settings):
        _leave_if(told)
        with _application(settings, port, grpc_port):
            _leave_if(told)
            host = _reachable(settings.host)
            address = f"http://{host}:{port}"
            _wait_for_answer(address)
            grpc = "" if grpc_port is None else f"; gRPC {host}:{grpc_port}"
            _say(f"Reel answers on {address}; API page {address}/docs{grpc} (ingress: {chosen})", own_output)
            told.setblocking(True)
            _leave_if(told)


@contextmanager
def _stoppable() -> Iterator[socket.socket]:
    """SIGTERM and SIGINT leave the block, whatever it is doing; further ones cannot interrupt the cleaning up.

    They leave it by what their handler raises. Where that is lost, because the handler ran inside a destructor or a
    callback of the interpreter, the signal can still be read from the socket.
    """
    told, telling = socket.socketpair()
    for end in (told, telling):
        end.setblocking(False)
    signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    try:
        _on_signals(_stop)
        yield told
    except _Stopped:
        pass
    except SystemExit as asked:
        # Ray's own handler of SIGTERM, which is in force while Ray starts.
        if asked.code != signal.SIGTERM:
            raise
    finally:
        signal.set_wakeup_fd(-1)
        told.close()
        telling.close()


def _leave_if(told: socket.socket) -> None:
    """Raise _Stopped if a signal to stop has come; with a blocking socket, once it comes."""
    while True:
        try:
            numbers = told.recv(64)
        except BlockingIOError:
            return
        if {signal.SIGTERM, signal.SIGINT} & set(numbers):
            _stop(0, None)


class _Stopped(BaseException):
    """Not an Exception: nothing on the way may take it for a failure."""


def _stop(number: int, frame: FrameType | None) -> None:
    _on_signals(signal.SIG_IGN)
    raise _Stopped


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


@contextmanager
def _ray(settings: ServingSettings) -> Iterator[None]:
    # Workers use this environment as it is; uv must not build another one for them.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's workers would stand back behind whatever else runs on the machine, while callers wait.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray  # after the environment is set

    local: dict[str, Any] = {"num_cpus": settings.ray_num_cpus, "include_dashboard": False}
    joined: dict[str, Any] = {"runtime_env": {"env_vars": _serve_environment()}}
    try:
        try:
            ray.init(
                address=settings.ray_address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **(joined if settings.ray_address else local),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = settings.ray_address or "this machine"
            raise ServingError(f"Ray could not be reached on {where}: {error}; check ray_address") from None
        _on_signals(_stop)  # Ray installs a handler of its own
        yield
    finally:
        ray.shutdown()


@contextmanager
def _application(settings: ServingSettings, port: int, grpc_port: int | None) -> Iterator[None]:
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from serving import app, deploy

    logs = deploy.LOGGING
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        try:
            serve.start(
                http_options=deploy.http_options(settings.host, port),
                grpc_options=deploy.grpc_options(grpc_port),
                logging_config=logs,
            )
            serve.run(app.build(settings), name=app.NAME, route_prefix="/", logging_config=logs)
        except (RuntimeError, RayServeException) as error:
            raise ServingError(f"the application could not be deployed: {_first_line(error)}") from None
        yield
    finally:
        if settings.ray_address:
            serve.delete(app.NAME)  # Serve itself may be at work for others
        else:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _serve_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}


def _wait_for_answer(address: str) -> None:
    """HAProxy takes up a new replica a moment after Serve says that it runs."""
    deadline_s = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            if httpx.get(f"{address}/healthz", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        if time.monotonic() > deadline_s:
            raise ServingError(f"{address} did not answer within {ANSWER_WITHIN_S} s; see Ray's logs")
        time.sleep(0.1)


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _say(line: str, stream: Any) -> None:
    stream.write(f"{line}\n")
    stream.flush()
