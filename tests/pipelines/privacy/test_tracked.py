"""`reel privacy verify` looks into an MLflow server too: what it says of everything, and every artefact."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from pipelines.privacy.person import Person
from pipelines.privacy.verify import PSEUDONYM, verify
from pipelines.processes import find_free_port
from pipelines.settings import MlflowSettings, Settings
from pipelines.tracking import Tracking
from tests.platform import SALT, hashed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
WHO = Person(user_ids=frozenset({hashed("ann-4711")}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server that keeps artefacts itself."""
    folder, port = tmp_path_factory.mktemp("server"), find_free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artefacts"),
    ]  # fmt: skip
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=folder)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while not _answers(address):
            assert process.poll() is None, (folder / "said").read_text()
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_what_a_server_keeps_is_looked_through(server, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    settings = Settings(work_dir=tmp_path / "work", mlflow=MlflowSettings(tracking_uri=server))
    tracking, client = Tracking(server), MlflowClient(server, server)
    notes, name = tmp_path / "notes.txt", hashed("ann-4711")
    notes.write_text("nobody")
    runs = [tracking.open_run("churn", f"churn-{number}", {"reel.model": "churn"}) for number in range(4)]
    for run in runs:
        client.log_artifact(run, str(notes), "plots/by_day")
    clean = verify(settings, "ann-4711", WHO)
    assert clean.found == ()
    assert clean.files > len(runs) * 2
    assert not any(server in left for left in clean.not_looked_at)

    client.set_tag(runs[0], "example", name)
    notes.write_text(f"profiles: {name}")
    client.log_artifact(runs[1], str(notes), "plots/by_day")
    client.create_registered_model("churn", description=f"learnt from {name}")
    client.log_param(runs[2], "example", name)
    client.delete_run(runs[2])
    found = verify(settings, "ann-4711", WHO).found
    assert {one.what for one in found} == {PSEUDONYM}
    artefact = f"mlflow-artifacts:/1/{runs[1]}/artifacts/plots/by_day/notes.txt"
    assert {one.where for one in found} == {
        artefact, f"{server}, run {runs[0]}", f"{server}, run {runs[2]}", f"{server}, model churn",
    }  # fmt: skip
