"""`reel compare`, `reel card`, `reel publish --roll-back`, `reel retrain`, as people type them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.champions import crown
from pipelines.cli import main
from tests.pipelines.registry import MODEL, Registered
from tests.platform import SALT

Reel = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    """Version 1 was champion, then version 2, which learnt from another training set."""
    registered = Registered(tmp_path)
    figures = {"test_ndcg": 0.3, "test_ndcg_low": 0.28, "test_ndcg_high": 0.32, "test_slice_tier_free_ndcg": 0.1}
    first = registered.version(registered.run({"dim": 32}, figures), evaluated=MODEL)
    better = {**figures, "test_ndcg": 0.31, "test_slice_tier_free_ndcg": 0.2}
    second = registered.version(registered.run({"dim": 64}, better, {"digest": "b" * 64}), evaluated=MODEL)
    crown(registered.tracking, first, None)
    crown(registered.tracking, second, first)
    return registered


@pytest.fixture
def reel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reel:
    """Runs a command; its exit code, output and errors."""
    config = tmp_path / "config.yaml"
    config.write_text(f"work_dir: {tmp_path}\n")
    monkeypatch.setenv("REEL_SALT", SALT)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reel", "--config", str(config), *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def test_compare_shows_what_differs(registered: Registered, reel: Reel) -> None:
    code, said, _ = reel("compare", "recommendation/1", "recommendation@champion")
    assert code == 0
    for shown in ("dim", "32", "64", "0.3000 (0.2800 to 0.3200)", "intervals overlap", "the same: code, environment"):
        assert shown in said
    assert "tier_free" not in said
    assert "1 figures of slices differ too: --slices" in said
    assert "judged on the last periods of different training sets" in said
    assert "b" * 64 not in said
    assert "tier_free" in reel("compare", "recommendation/1", "recommendation/2", "--slices")[1]
    found = json.loads(reel("compare", "recommendation/1", "recommendation/2", "--json")[1])
    assert {"section": "data", "name": "digest", "left": "a" * 64, "right": "b" * 64, "remark": ""} in found[
        "differences"
    ]
    code, said, errors = reel("compare", "recommendation/1", "recommendation/9")
    assert (code, said) == (2, "")
    assert errors.count("\n") == 1
    assert "no version 'recommendation/9'" in errors


def test_a_champion_is_rolled_back_with_its_reason(registered: Registered, reel: Reel) -> None:
    code, said, _ = reel("publish", MODEL, "--roll-back", "--version", "2", "--reason", "wrong titles", "--json")
    assert code == 0
    assert json.loads(said)["wrote"] == {"champion": "1"}
    assert registered.aliases == {"champion": "1"}
    assert "rolled back on" in reel("card", "recommendation/2")[1]
    assert "It bears the alias champion." in reel("card", "recommendation@champion")[1]
    code, _, errors = reel("publish", MODEL, "--roll-back")
    assert code == 1
    assert "1 is the first champion" in errors
    assert reel("publish", MODEL, "--reason", "why not")[0] == 2


def test_a_card_is_also_a_page(registered: Registered, reel: Reel, tmp_path: Path) -> None:
    assert reel("card", "recommendation/1", "--html", str(tmp_path / "card.html"))[0] == 0
    assert "<h1>recommendation 1</h1>" in (tmp_path / "card.html").read_text()


def test_before_anything_was_trained_one_line_says_so(reel: Reel) -> None:
    for command in (("compare", "a", "b"), ("card", "recommendation/1")):
        code, _, errors = reel(*command)
        assert code == 1
        assert "run `reel train` first" in errors


def test_retrain_wants_to_know_what(reel: Reel) -> None:
    assert reel("retrain")[0] == 2
    assert reel("retrain", "--due", MODEL)[0] == 2
    code, _, errors = reel("retrain", "recomendation")
    assert (code, errors.count("\n")) == (2, 1)
    assert "there is no model 'recomendation'" in errors
