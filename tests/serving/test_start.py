"""What `python -m serving` says and returns when it cannot start: one line, before Ray is touched."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import ingress, service
from serving.errors import IngressError, PortInUseError
from serving.settings import ServingSettings
from tests.serving.conftest import free_port
from tests.serving.service_process import PROJECT

LEAST: dict[str, Any] = {"online_store_url": "lmdb:///nowhere/online", "mlflow_tracking_uri": "sqlite:////nowhere/m.db"}


def start(folder: Path, change: dict[str, Any], **environment: str) -> subprocess.CompletedProcess[str]:
    config = folder / "serving.json"
    config.write_text(json.dumps(LEAST | change))
    inherited = {name: value for name, value in os.environ.items() if name != "REEL_SALT"}
    return subprocess.run(
        [sys.executable, "-m", "serving", "--config", str(config)],
        cwd=PROJECT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def one_line(ended: subprocess.CompletedProcess[str], code: int) -> str:
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("serving: ")
    return line


def test_a_port_in_use_is_one_line_and_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        # With SO_REUSEPORT another process could share the port, and each would get half of the requests.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = one_line(start(tmp_path, {"port": port}, REEL_SALT="salt"), 1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line


def test_an_address_of_another_machine_is_one_line_and_1(tmp_path: Path) -> None:
    settings = {"host": "198.51.100.7", "tokens": {"algorithm": "HS256"}}
    ended = start(tmp_path, settings, REEL_SALT="salt", REEL_TOKEN_SECRET="0123456789abcdef" * 2)
    assert "cannot listen on 198.51.100.7" in one_line(ended, 1)


def test_without_tokens_it_listens_to_this_machine_alone(tmp_path: Path) -> None:
    ended = start(tmp_path, {"host": "0.0.0.0"}, REEL_SALT="salt")
    assert "host 0.0.0.0 lets other machines ask" in one_line(ended, 2)


def test_wrong_configuration_is_one_line_and_2(tmp_path: Path) -> None:
    assert "did you mean 'port'" in one_line(start(tmp_path, {"prot": 1}, REEL_SALT="salt"), 2)


def test_a_missing_salt_is_one_line_and_2(tmp_path: Path) -> None:
    assert "set REEL_SALT" in one_line(start(tmp_path, {}), 2)


def test_a_wrong_store_address_is_one_line_and_2(tmp_path: Path) -> None:
    ended = start(tmp_path, {"online_store_url": "sqlite:///x", "port": 0}, REEL_SALT="salt")
    assert "unknown scheme 'sqlite'" in one_line(ended, 2)


def test_wrong_usage_is_2() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "serving"], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "--config" in ended.stderr


# --- the ingress ---------------------------------------------------------------------------------------------


def settings(**change: Any) -> ServingSettings:
    return ServingSettings.model_validate(LEAST | change)


def test_haproxy_is_chosen_where_it_runs() -> None:
    assert ingress.choose(settings()) == ("haproxy", None)
    assert ingress.choose(settings(ingress="python")) == ("python", None)


def test_without_haproxy_the_other_ingress_answers_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(broken))
    chosen, why = ingress.choose(settings())
    assert chosen == "python"
    assert why is not None
    assert why.startswith("HAProxy cannot run here: ")
    assert "\n" not in why
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "none"))
    with pytest.raises(IngressError, match="set ingress to auto or python"):
        ingress.choose(settings(ingress="haproxy"))


def test_what_the_environment_says_stays() -> None:
    environ = {"RAY_SERVE_HAPROXY_NBTHREAD": "7"}
    ingress.configure("haproxy", settings(drain_s=3), environ)
    assert environ["RAY_SERVE_HAPROXY_NBTHREAD"] == "7"
    assert environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] == "3.0"
    python: dict[str, str] = {}
    ingress.configure("python", settings(), python)
    assert python["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


def test_a_port_that_was_in_use_a_moment_ago_is_free() -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with pytest.raises(PortInUseError):
            ingress.check_port("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # leaves the port in TIME_WAIT
    assert ingress.check_port("127.0.0.1", port) == port
    assert ingress.check_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_whose_handler_was_another_s_or_raised_in_vain_still_stops(number: signal.Signals) -> None:
    # What a handler raises is lost inside destructors and callbacks of fork, and Ray has handlers of its own.
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    passed = []
    try:
        with service._stoppable() as told:
            service._leave_if(told)
            passed.append("nothing came yet")
            signal.signal(number, lambda *_: None)
            os.kill(os.getpid(), number)
            passed.append("the handler raised nothing")
            service._leave_if(told)
            passed.append("not stopped")
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    assert passed == ["nothing came yet", "the handler raised nothing"]
