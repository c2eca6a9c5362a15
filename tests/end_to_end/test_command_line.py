"""What a person sees when something is wrong: one clear line, and the right exit code."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli
from tests.joined import session_ray
from tests.platform import SALT, T0, Platform, described, watched

pytestmark = pytest.mark.timeout(300)


def reel(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `reel` as a person would; the work folder is the test's own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REEL_")}
    environment = clean | {"REEL_WORK_DIR": str(folder), "REEL_SALT": SALT} | variables
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *command],
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def reel_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`reel` in this process, for what ends before anything was started: a process of its own takes seconds."""
    for name in [name for name in os.environ if name.startswith("REEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REEL_WORK_DIR", str(tmp_path))
    monkeypatch.setenv("REEL_SALT", SALT)
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "WARNING")  # as `main` does, which leaves it so

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        for name, value in variables.items():
            if value:
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "argv", ["reel", *command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), said.out, said.err)

    return run


def the_line(done: subprocess.CompletedProcess[str], exit_code: int) -> str:
    """The one line of a failed command."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == exit_code, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("reel: ")
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("bogus",), "bogus"),
        ((), "see `reel --help`"),
        (("ingest", "--fast"), "--fast"),
        (("simulate", "--households", "many"), "'--households': Input should be a valid integer"),
        (("simulate", "--households", "0"), "households"),
        (("training-set",), "personalization"),
        (("training-set", "--purpose", "advertising"), "'advertising'"),
        (("import", "movielens", "/nowhere"), "/nowhere is not a folder; give the one with MovieLens 100K's u.data"),
        (("--config", "/nowhere.yaml", "status"), "/nowhere.yaml"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(reel_here, command, said):
    assert said in the_line(reel_here(*command), 2)


def test_a_wrong_key_names_the_nearest_one(reel_here, tmp_path):
    config = tmp_path / "wrong.yaml"
    config.write_text("kafka:\n  bootstrap_server: localhost:9092\n")
    line = the_line(reel_here("--config", str(config), "status"), 2)
    assert "unknown key 'kafka.bootstrap_server'; did you mean 'kafka.bootstrap_servers'?" in line


def test_no_broker_at_all_says_how_to_start_one(reel_here):
    assert "`make kafka`" in the_line(reel_here("ingest"), 1)


def test_a_dead_broker_is_named_within_its_timeout(reel_here, tmp_path, free_port):
    address = f"127.0.0.1:{free_port}"
    variables = {"REEL_KAFKA_BOOTSTRAP_SERVERS": address, "REEL_KAFKA_TIMEOUT_S": "3"}
    ingest = reel(tmp_path, "ingest", **variables)
    simulate = reel_here("simulate", "--households", "2", "--days", "1", **variables)
    for done in (ingest, simulate):
        assert f"no Kafka broker answered at {address} within 3 s" in the_line(done, 1)


def test_a_topic_that_is_not_there_is_named(reel_here, tmp_path):
    platform = Platform(tmp_path)
    done = reel_here("ingest", "--topic", "client.playbak", REEL_KAFKA_BOOTSTRAP_SERVERS=platform.bootstrap)
    assert "Kafka has no topic 'client.playbak'" in the_line(done, 2)


def test_production_without_a_salt_does_not_start(reel_here, tmp_path):
    platform = Platform(tmp_path)
    platform.send(described("ann"))
    variables = {"REEL_ENVIRONMENT": "production", "REEL_SALT": "", "REEL_KAFKA_BOOTSTRAP_SERVERS": platform.bootstrap}
    assert "REEL_SALT is not set" in the_line(reel_here("ingest", **variables), 2)
    assert "REEL_SALT is not set" in the_line(reel(tmp_path, "serve", **variables), 2)


def test_before_anything_was_served_there_is_nothing_to_compare(tmp_path):
    done = reel(tmp_path, "consistency", "--fail-under", "0.999", "--html", str(tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr
    assert "nothing to compare yet" in done.stdout
    assert "No answer was compared" in (tmp_path / "page.html").read_text()


def test_stations_out_of_order_say_what_to_run_first(reel_here, tmp_path):
    assert "run `reel ingest`, then `reel clean`" in the_line(reel_here("features"), 1)
    assert "run `reel ingest`" in the_line(reel_here("training-set", "--purpose", "personalization"), 1)
    assert "run `reel training-set` first" in the_line(reel(tmp_path, "train"), 1)


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = reel(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "port" in done.stderr


def test_json_is_one_line_that_a_machine_can_read(ray_session, tmp_path):
    platform = Platform(tmp_path)
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    variables = session_ray() | {"REEL_KAFKA_BOOTSTRAP_SERVERS": platform.bootstrap}
    done = reel(tmp_path, "ingest", "--json", **variables)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["station"] == "ingest"
    assert report["read"]["messages"] == 3
    assert report["wrote"]["bronze.events"] == 3


@pytest.mark.parametrize(
    "command", ["simulate", "ingest", "clean", "features", "training-set", "train", "evaluate", "deployment"]
)
def test_every_station_explains_itself(reel_here, command):
    done = reel_here(command, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout


def test_a_stream_needs_features_to_go_on_from(reel_here, tmp_path):
    kafka = f"embedded:{tmp_path / 'log.db'}"
    line = the_line(reel_here("stream", REEL_KAFKA_BOOTSTRAP_SERVERS=kafka), 1)
    assert "run `reel features`" in line
