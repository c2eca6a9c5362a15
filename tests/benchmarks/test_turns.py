"""Ways that take turns: only the one whose turn it is does anything, and its time is the time that it ran."""

import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.turns import Turns

MARKS = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1]) / "own"
place.mkdir()
with (place / "ends").open("w", buffering=1) as file:
    for _ in range(int(sys.argv[2])):
        for _ in range(20):
            time.sleep(0.01)
        file.write("an end\\n")
print("done")
sys.exit(sys.argv[3] if len(sys.argv) > 3 else 0)
"""


def way(folder: Path, ends: int, *more: str) -> Turns:
    folder.mkdir()
    return Turns([sys.executable, "-c", MARKS, str(folder), str(ends), *more], folder, "ends")


def marked(folder: Path) -> int:
    return (folder / "own" / "ends").read_text().count("\n")


def test_a_way_does_nothing_while_it_is_anothers_turn_and_that_time_does_not_count(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with way(one, 6) as ones, way(other, 6) as others:
        ones.take(2)
        held = marked(one)
        others.take(3)
        theirs = marked(other)
        time.sleep(0.5)
        assert (marked(one), marked(other)) == (held, theirs)
        ones.take(4)
        assert ones.stopped_s > 1.0, "three ends of the other's, and half a second"
        assert ones.ends_s[3] - ones.ends_s[1] < ones.stopped_s
        assert len(ones.ends_s) >= 4
        assert len(others.ends_s) >= 3
        assert ones.peak_bytes > 1_000_000
        assert ones.finish() == "done\n"
        assert marked(one) == 6


def test_a_way_that_ends_early_or_fails_says_why(tmp_path: Path) -> None:
    with way(tmp_path / "short", 1, "no rows") as turns, pytest.raises(RuntimeError, match="of 3 ends; no rows"):
        turns.take(3)
    with way(tmp_path / "bad", 2, "no room") as turns:
        turns.take(1)
        with pytest.raises(RuntimeError, match="no room"):
            turns.finish()
