"""Champions come and go in one step each; killed anywhere, the same command again brings it to its end."""

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipelines import champions
from pipelines.champions import CHALLENGER, CHAMPION, FORMER_TAG, crown, log_decision
from pipelines.publish import publish
from pipelines.roll_back import NotChampionError, NothingToRollBackError, roll_back
from pipelines.tracking import ModelNotRegisteredError, Tracking
from tests.pipelines.registry import MODEL, Registered


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    return Registered(tmp_path)


class Killed(BaseException):
    """The process ends here."""


WRITES = ("tag_version", "set_alias", "remove_alias")


def killed_after(allowed: int, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Does `work`, but the process dies before its write number `allowed` (from 0) to the registry; whether it did."""
    done = 0

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def write(*arguments: object) -> None:
            nonlocal done
            if done == allowed:
                raise Killed
            done += 1
            real(*arguments)

        return write

    with monkeypatch.context() as patch:
        for name in WRITES:
            patch.setattr(Tracking, name, counted(getattr(Tracking, name)))
        try:
            work()
        except Killed:
            return True
    return False


def champion_of_two(registered: Registered) -> None:
    """Version 1 was champion, then version 2."""
    first, second = registered.version(), registered.version()
    crown(registered.tracking, first, None)
    crown(registered.tracking, registered.find(second), registered.find(first))
    assert registered.aliases == {CHAMPION: "2", CHALLENGER: "1"}


def test_the_former_champion_comes_back_and_the_reason_is_logged(registered: Registered) -> None:
    champion_of_two(registered)
    report = roll_back(MODEL, tracking_uri=registered.uri, reason="answers with titles nobody can watch")
    assert report.wrote == {CHAMPION: "1"}
    assert registered.aliases == {CHAMPION: "1"}
    gone = registered.tracking.version(MODEL, "2")
    assert gone.tags["rolled_back.reason"] == "answers with titles nobody can watch"
    assert gone.tags["gate.decision"] == "rolled back"
    path = registered.tracking.client.download_artifacts(str(gone.run_id), "gate/roll_back.json")
    logged = json.loads(Path(path).read_text())
    assert (logged["version"], logged["back_to"]) == ("2", "1")
    assert logged["reason"] == "answers with titles nobody can watch"
    assert "It was rolled back on" in gone.description
    assert "It bears the alias champion." in registered.tracking.version(MODEL, "1").description


def test_what_was_rolled_back_does_not_pass_the_gate_again(registered: Registered) -> None:
    champion_of_two(registered)
    registered.tracking.tag_version(registered.tracking.version(MODEL, "2"), {"evaluated": "recommendation"})
    roll_back(MODEL, tracking_uri=registered.uri, reason="wrong")
    did = publish(MODEL, tracking_uri=registered.uri).did
    assert did["decision"] == "refused"
    assert did["reason"] == "it was rolled back: wrong; train another"
    assert registered.aliases == {CHAMPION: "1"}


def test_a_version_that_is_named_is_rolled_back_once(registered: Registered) -> None:
    champion_of_two(registered)
    roll_back(MODEL, tracking_uri=registered.uri, version="2", reason="wrong")
    again = roll_back(MODEL, tracking_uri=registered.uri, version="2", reason="wrong")
    assert again.did == {"already rolled back": "version 2", "reason": "wrong"}
    assert registered.aliases == {CHAMPION: "1"}


def test_what_cannot_be_rolled_back_is_told(registered: Registered) -> None:
    first = registered.version()
    with pytest.raises(NothingToRollBackError, match="has no champion; `reel publish recommendation`"):
        roll_back(MODEL, tracking_uri=registered.uri)
    crown(registered.tracking, first, None)
    with pytest.raises(NothingToRollBackError, match="1 is the first champion"):
        roll_back(MODEL, tracking_uri=registered.uri)
    registered.version()
    with pytest.raises(NotChampionError, match="2 is not the champion: version 1 is"):
        roll_back(MODEL, tracking_uri=registered.uri, version="2")
    with pytest.raises(ModelNotRegisteredError, match="no version 9"):
        roll_back(MODEL, tracking_uri=registered.uri, version="9")
    assert registered.aliases == {CHAMPION: "1"}


def test_a_roll_back_that_is_killed_is_brought_to_its_end(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion_of_two(registered)
    work = partial(roll_back, MODEL, tracking_uri=registered.uri, version="2", reason="wrong")
    for allowed in itertools.count():
        was_killed = killed_after(allowed, work, monkeypatch)
        assert registered.aliases[CHAMPION] == ("2" if was_killed else "1"), f"half done after {allowed} writes"
        work()
        assert registered.aliases == {CHAMPION: "1"}
        if not was_killed:
            break
        for number, alias in (("1", CHALLENGER), ("2", CHAMPION)):
            registered.tracking.set_alias(registered.tracking.version(MODEL, number), alias)
    assert allowed == 3


def test_a_promotion_that_is_killed_is_brought_to_its_end(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = registered.version(), registered.version()
    work = partial(crown, registered.tracking, new, old)
    for allowed in itertools.count():
        registered.tracking.set_alias(old, CHAMPION)
        was_killed = killed_after(allowed, work, monkeypatch)
        assert registered.aliases[CHAMPION] == ("1" if was_killed else "2"), f"half done after {allowed} writes"
        work()
        assert registered.aliases == {CHAMPION: "2", CHALLENGER: "1"}
        assert registered.find(new).tags[FORMER_TAG] == "1"
        if not was_killed:
            break
    assert allowed == 3


def test_the_gates_reasons_are_a_file_of_the_run(registered: Registered) -> None:
    version = registered.version()
    log_decision(registered.tracking, version, {"gate.decision": "refused", "gate.reason": "not better"})
    path = registered.tracking.client.download_artifacts(str(version.run_id), champions.DECISION_FILE)
    logged = json.loads(Path(path).read_text())
    assert (logged["model"], logged["version"], logged["gate.reason"]) == (MODEL, "1", "not better")
