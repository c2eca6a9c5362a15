"""`reel privacy verify` reads Ray's logs of this machine: those of a service beside it, and of earlier runs, too."""

import os
import shutil

import pytest

from pipelines.cluster import logs_folders
from pipelines.privacy.person import Person
from pipelines.privacy.verify import PLAIN, PSEUDONYM, verify
from pipelines.settings import Settings
from tests.platform import SALT, hashed

pytestmark = pytest.mark.usefixtures("ray_session")
WHO = Person(user_ids=frozenset({hashed("ann-0815")}))


@pytest.fixture
def another_session():
    """The folder of logs of a session that is over."""
    ours, *_ = logs_folders()
    folder = ours.parent.with_name(f"session_of_a_test_{os.getpid()}") / "logs"
    folder.mkdir(parents=True)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder.parent)


def test_a_line_of_another_sessions_log_is_found(another_session, tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    settings = Settings(work_dir=tmp_path / "work")
    clean = verify(settings, "ann-0815", WHO)
    assert clean.found == ()

    (another_session / "serve").mkdir()
    (another_session / "serve" / "replica.log").write_text("GET /v1/features?user_id=ann-0815 200\n")
    (another_session / "worker.err").write_text(f"KeyError: '{hashed('ann-0815')}'\n")
    (another_session / "worker.out").write_text("ann-08159 and joann-0815 are others\n")
    there = verify(settings, "ann-0815", WHO)
    assert {(one.where.removeprefix(f"file://{another_session}/"), one.what) for one in there.found} == {
        ("serve/replica.log", PLAIN),
        ("worker.err", PSEUDONYM),
    }
    assert there.files >= clean.files + 3


def test_every_session_of_the_machine_is_one(another_session):
    assert another_session in logs_folders()
    assert len(logs_folders()) == len({folder.resolve() for folder in logs_folders()}) >= 2
