"""What the processes of one machine need of each other: who is who, who goes first, and which port is free.

Linux only: processes are told apart by /proc and held by pidfd.
"""

import fcntl
import os
import random
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import PortInUse

HOST = "127.0.0.1"

# Ray's workers listen from 10002 to 19999. From 32768 on lie the ports of outgoing connections: there, a client
# that keeps knocking at a dead server's port is sooner or later given that very port, talks to itself and holds it.
_FREE_PORTS = range(20_000, 32_768)
_PORTS_TRIED = 200


@dataclass(frozen=True)
class LocalProcess:
    """One process for good: ids are reused, an id together with its start time (clock ticks since boot) is not."""

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether this very process still runs; one that ended and was not waited for (a zombie) does not."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        # proc_pid_stat(5): the second field is a name in parentheses that may hold anything; the third is the state.
        fields = stat.rpartition(")")[2].split()
        return fields[0] not in "ZX" and int(fields[19]) == self.start_ticks

    def end(self, signal_number: int, grace_s: float) -> bool:
        """Send this very process a signal; whether it is gone within `grace_s`."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            # Compared only now: while the handle is held, the id cannot come to mean another process.
            if not self.is_alive():
                return True
            signal.pidfd_send_signal(handle, signal_number)
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            return bool(ended.poll(grace_s * 1000))
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file `path` as a lock against all other processes; the kernel frees it if this one dies."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def why_not_free(port: int) -> str | None:
    """Why nobody can listen on `port` of this machine now, in the system's words; None if one can."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier life that linger in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as refusal:
            return refusal.strerror or str(refusal)
    return None


def find_free_port(besides: int | None = None) -> int:
    """A port that a server can listen on now, and again after a crash. Raises PortInUse if none is found."""
    # A generator of its own: tests seed the global one, and would then all choose the same ports.
    candidates = random.Random().sample(_FREE_PORTS, _PORTS_TRIED)
    for port in candidates:
        if port != besides and why_not_free(port) is None:
            return port
    raise PortInUse(candidates[0], f"nor any of {_PORTS_TRIED - 1} others")
