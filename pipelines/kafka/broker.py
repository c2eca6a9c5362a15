"""The local broker: one real Apache Kafka node (KRaft) for development and tests.

Input: a folder of its own, and a port or none. Does: has Kafka's jars fetched (once), formats the storage (once),
starts the node detached from the caller and waits until it answers. Output: the address it answers at.

The folder then holds `libs/` (the jars), `data/` (the node's storage), `broker.pid` (process id and start time),
`bootstrap` (where it runs, or last ran), `broker.log` and `broker.log.1` (this life's log and the last one's).
The node or its starter may be killed at any moment: the next `start` goes on with the same messages and, if nobody
took its port, at the same address.
"""

import argparse
import base64
import logging
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.errors import (
    BrokerRunsElsewhere,
    BrokerStartFailed,
    BrokerStopFailed,
    PortInUse,
    ReelError,
)
from pipelines.kafka.jars import fetch_jars, find_java
from pipelines.processes import HOST, LocalProcess, find_free_port, locked, why_not_free

DEFAULT_FOLDER = Path(".reel/kafka")

_CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "kafka"
_SERVER_PROPERTIES = _CONFIGS / "server.properties"
_START_TIMEOUT_S = 90.0
_TERM_GRACE_S = 20.0
_KILL_GRACE_S = 10.0
_POLL_S = 0.05

# The quick compiler alone, and the plain collector: a start costs 2.1 s of processor time instead of 3.2, and taking
# in a million messages of 300 bytes 1.3 s instead of 2.0.
_JVM_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

# The node is the grandchild of its starter, so nobody has to wait for it. The shell between them outlives a dying
# starter, and notes the node's process id and start time (field 22 of /proc/PID/stat) before it ends.
_LAUNCH_DETACHED = '"$@" & echo "$! $(cut -d" " -f22 "/proc/$!/stat")" >"$0"'


@dataclass(frozen=True)
class BrokerAddress:
    """Where a running broker listens, and as which process."""

    host: str
    port: int
    pid: int

    @property
    def bootstrap(self) -> str:
        """What Kafka clients call `bootstrap.servers`."""
        return f"{self.host}:{self.port}"


class LocalBroker:
    """The Kafka node that lives in one folder. Any number of processes may start and stop it at once."""

    def __init__(self, folder: Path, libs: Path | None = None) -> None:
        """`libs`: where the jars are, or are to be put, for brokers that share them; else `folder/libs`."""
        self.folder = folder.resolve()
        self.libs = self.folder / "libs" if libs is None else libs.resolve()
        self.log = self.folder / "broker.log"
        self._data = self.folder / "data"
        self._lock = self.folder / "lock"
        self._pid_file = self.folder / "broker.pid"
        self._bootstrap_file = self.folder / "bootstrap"

    def start(self, port: int | None = None, timeout_s: float = _START_TIMEOUT_S) -> BrokerAddress:
        """Start the broker unless it runs already, and wait until it answers.

        `port` None stands for the port it had before, or else any free one.

        Raises JavaMissing, MavenMissing, KafkaJarsNotFetched, PortInUse, BrokerStartFailed, and
        BrokerRunsElsewhere if it runs already on another port than the one asked for.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            found = self.status()
            address = found or self._launch(port)
        if port is not None and port != address.port:
            raise BrokerRunsElsewhere(
                f"the broker of {self.folder} runs at {address.bootstrap}, not on port {port}: stop it first"
            )
        if self._wait_until_it_answers(address, timeout_s):
            return address
        if found is not None:
            return self.start(port, timeout_s)  # it was about to die when it was found
        raise BrokerStartFailed(f"the broker died at start: {self._last_log_line()} (see {self.log})")

    def stop(self) -> bool:
        """End the broker in good order, after 20 s by force; whether one was running. Raises BrokerStopFailed."""
        return self._end(signal.SIGTERM, _TERM_GRACE_S)

    def kill(self) -> bool:
        """End the broker on the spot (SIGKILL); whether one was running. Raises BrokerStopFailed."""
        return self._end(signal.SIGKILL, _KILL_GRACE_S)

    def status(self) -> BrokerAddress | None:
        """Where the broker runs; None if its process is not alive."""
        process = self._noted_process()
        port = self._noted_port()
        if process is None or port is None or not process.is_alive():
            return None
        return BrokerAddress(HOST, port, process.pid)

    def answers(self, timeout_s: float = 2.0) -> bool:
        """Whether the broker runs and clients can use it."""
        address = self.status()
        return address is not None and self._is_ready(_admin_client(address), timeout_s)

    def _launch(self, wanted_port: int | None) -> BrokerAddress:
        """Start the node's process, which is not ready then. The folder is locked, and no node runs in it."""
        java = find_java()
        fetch_jars(self.libs)
        self._format_storage(java)
        port = self._choose_port(wanted_port)
        controller_port = find_free_port(besides=port)
        overrides = (
            f"listeners=BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
            f"advertised.listeners=BROKER://{HOST}:{port}",
            f"controller.quorum.voters=1@{HOST}:{controller_port}",
        )
        command = self._java_command(java, "-Xmx512m", "kafka.Kafka", str(_SERVER_PROPERTIES))
        for override in overrides:
            command += ["--override", override]
        # The address goes to disk first: once its process is noted too, the broker counts as running.
        partial = self._bootstrap_file.with_suffix(".partial")
        partial.write_text(f"{HOST}:{port}\n")
        partial.replace(self._bootstrap_file)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as log:
            subprocess.run(
                ["sh", "-c", _LAUNCH_DETACHED, str(self._pid_file), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=True,
            )
        process = self._noted_process()
        assert process is not None, "the launching shell ended well but noted no process"
        return BrokerAddress(HOST, port, process.pid)

    def _format_storage(self, java: str) -> None:
        """Give the node its storage and its cluster a new identity, unless it has them. All or nothing."""
        if self._data.exists():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self._java_command(java, "-Xmx128m", "kafka.tools.StorageTool", "format")
        command += [f"--cluster-id={cluster_id}", f"--config={_SERVER_PROPERTIES}"]
        with tempfile.TemporaryDirectory(prefix="format-", dir=self.folder) as scratch:
            done = subprocess.run(
                command,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise BrokerStartFailed(f"Kafka could not format {self._data}: {_last_words(done.stdout)}")
            (Path(scratch) / "data").rename(self._data)

    def _java_command(self, java: str, heap: str, *program: str) -> list[str]:
        log_settings = (_CONFIGS / "log4j2.properties").as_uri()
        logging_flag = f"-Dlog4j2.configurationFile={log_settings}"
        return [java, heap, *_JVM_FLAGS, logging_flag, "-cp", f"{self.libs}/*", *program]

    def _choose_port(self, wanted: int | None) -> int:
        if wanted is not None:
            if reason := why_not_free(wanted):
                raise PortInUse(wanted, reason)
            return wanted
        last = self._noted_port()
        if last is not None and why_not_free(last) is None:
            return last
        return find_free_port()

    def _wait_until_it_answers(self, address: BrokerAddress, timeout_s: float) -> bool:
        """Whether it came to answer; False if it died."""
        client = _admin_client(address)
        deadline = time.monotonic() + timeout_s
        while not self._is_ready(client, timeout_s=0.5):
            if self.status() != address:
                return False
            if time.monotonic() > deadline:
                raise BrokerStartFailed(
                    f"the broker (pid {address.pid}) does not answer at {address.bootstrap} yet after "
                    f"{timeout_s:g} s: start again to wait on, or see {self.log}"
                )
            time.sleep(_POLL_S)
        return True

    def _is_ready(self, client: AdminClient, timeout_s: float) -> bool:
        """Whether our own node, and not another that took its port, answers and is ready to serve."""
        try:
            metadata = client.list_topics(timeout=timeout_s)
        except KafkaException:
            return False
        return bool(metadata.brokers) and metadata.cluster_id == self._cluster_id()

    def _cluster_id(self) -> str:
        lines = (self._data / "meta.properties").read_text().splitlines()
        return next(line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id="))

    def _last_log_line(self) -> str:
        return _last_words(self.log.read_text(errors="replace"))

    def _noted_process(self) -> LocalProcess | None:
        noted = _read(self._pid_file).split()
        if len(noted) != 2:
            return None  # never started, or stopped, or the shell is just about to write it
        return LocalProcess(pid=int(noted[0]), start_ticks=int(noted[1]))

    def _noted_port(self) -> int | None:
        bootstrap = _read(self._bootstrap_file).strip()
        return int(bootstrap.rpartition(":")[2]) if bootstrap else None

    def _end(self, signal_number: int, grace_s: float) -> bool:
        if not self.folder.exists():
            return False
        with locked(self._lock):
            process = self._noted_process()
            if process is None:
                return False
            was_alive = process.is_alive()
            if not process.end(signal_number, grace_s) and not process.end(signal.SIGKILL, _KILL_GRACE_S):
                raise BrokerStopFailed(f"the broker (pid {process.pid}) is still there after SIGKILL")
            self._pid_file.unlink()
            return was_alive


def local_bootstrap(folder: Path) -> str | None:
    """The bootstrap servers of the broker that lives in `folder`; None unless its process is alive."""
    address = LocalBroker(folder).status()
    return None if address is None else address.bootstrap


def _read(path: Path) -> str:
    """The text of `path`, empty if there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _admin_client(address: BrokerAddress) -> AdminClient:
    return AdminClient(
        {
            "bootstrap.servers": address.bootstrap,
            # While the broker starts every knock is refused: no news, and worth trying again at once.
            "log_level": 0,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
        }
    )


def _last_words(log: str) -> str:
    """The last line of a Java program's log that is not a stack frame."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(("\t", " "))]
    return lines[-1] if lines else "it said nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m pipelines.kafka.broker start|stop|status`; the exit code is 0 done, 1 failed, 2 wrong usage."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    broker = LocalBroker(chosen.folder)
    try:
        if chosen.command == "start":
            return _say(_runs(broker.start(chosen.port)))
        if chosen.command == "stop":
            return _say("Kafka stopped" if broker.stop() else f"no Kafka runs in {chosen.folder}")
        return _say_status(broker)
    except ReelError as failure:
        sys.stderr.write(f"error: {failure}\n")
        return failure.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.kafka.broker", description="The local Kafka broker.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start it unless it runs, and wait until it answers")
    start.add_argument("--port", type=_port, help="where to listen (default: as last time, else a free port)")
    commands.add_parser("stop", help="stop it, and keep its messages")
    commands.add_parser("status", help="say where it runs; exit code 1 if it does not, or does not answer")
    for command in commands.choices.values():
        command.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="its folder (%(default)s)")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, got {text!r}")
    return int(text)


def _say_status(broker: LocalBroker) -> int:
    address = broker.status()
    if address is None:
        return _say(f"no Kafka runs in {broker.folder}", exit_code=1)
    if not broker.answers():
        return _say(f"Kafka (pid {address.pid}) does not answer at {address.bootstrap}", exit_code=1)
    return _say(_runs(address))


def _runs(address: BrokerAddress) -> str:
    return f"Kafka runs at {address.bootstrap} (pid {address.pid})"


def _say(line: str, exit_code: int = 0) -> int:
    sys.stdout.write(line + "\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
