"""Processes are told apart by more than their ids; ports that are said to be free are."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from pipelines.processes import LocalProcess, find_free_port, locked, why_not_free


def this_process() -> LocalProcess:
    # The 22nd field of /proc/PID/stat; the test's own process has a name without spaces or parentheses.
    return LocalProcess(os.getpid(), int(Path("/proc/self/stat").read_text().split()[21]))


def start_of(process: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{process.pid}/stat").read_text().split()[21])


def test_a_process_is_itself_and_no_other_of_its_id() -> None:
    own = this_process()

    assert own.is_alive()
    assert not LocalProcess(own.pid, own.start_ticks - 1).is_alive()


def test_a_process_that_ended_and_was_not_waited_for_is_not_alive() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        process = LocalProcess(sleeper.pid, start_of(sleeper))
        assert process.is_alive()

        assert process.end(signal.SIGKILL, grace_s=5)

        assert Path(f"/proc/{sleeper.pid}").exists()  # a zombie
        assert not process.is_alive()
    assert process.end(signal.SIGKILL, grace_s=5)  # no such process any more: nothing to do


def test_ending_spares_another_process_of_the_same_id() -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        stale = LocalProcess(bystander.pid, start_of(bystander) - 1)

        assert stale.end(signal.SIGKILL, grace_s=5)

        assert bystander.poll() is None
        bystander.kill()


def test_ending_says_when_a_process_does_not_go() -> None:
    with subprocess.Popen(["sh", "-c", "trap '' TERM; echo ready; read _"], stdin=-1, stdout=-1) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"ready\n"
        process = LocalProcess(stubborn.pid, start_of(stubborn))

        assert not process.end(signal.SIGTERM, grace_s=0.2)

        assert process.is_alive()
        assert process.end(signal.SIGKILL, grace_s=5)


def test_a_port_is_free_until_someone_listens() -> None:
    port = find_free_port()
    assert why_not_free(port) is None

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert why_not_free(port) == "Address already in use"
    assert why_not_free(port) is None


def test_a_port_whose_connections_linger_is_free() -> None:
    port = find_free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listener.accept()
        served.close()  # who closes first keeps the connection in TIME_WAIT
        client.close()

    assert why_not_free(port) is None


def test_free_ports_are_neither_rays_nor_those_of_outgoing_connections() -> None:
    ports = [find_free_port() for _ in range(50)]

    assert min(ports) >= 20_000
    assert max(ports) <= 32_767
    assert len(set(ports)) > 25
    assert all(find_free_port(besides=port) != port for port in ports)


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock):
        other = subprocess.Popen(["flock", str(lock), "true"])
        time.sleep(0.2)
        assert other.poll() is None
    assert other.wait(timeout=60) == 0
