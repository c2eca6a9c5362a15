"""When the controller of a training sleeps between two looks at its workers."""

import pytest
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus

from pipelines import train_looks
from pipelines.train_looks import RareLooks

LOOK_S = 0.25  # what a look, and the controller's own wait before it, take


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    clock = Clock()
    monkeypatch.setattr(train_looks, "time", clock)
    return clock


class Clock:
    """A time of its own, which passes by sleeping and by looks."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def look(looks: RareLooks, clock: Clock, **status: object) -> None:
    clock.now_s += LOOK_S
    looks.after_worker_group_poll_status(WorkerGroupPollStatus({0: WorkerStatus(**{"running": True, **status})}))  # type: ignore[arg-type]


def test_sleeps_for_half_of_what_is_left_of_an_epoch(clock: Clock) -> None:
    """The epoch before took 4 s, so .25 s after its report 3.75 are left: 1.875, then .8125 of 1.625, and so on."""
    looks = RareLooks()
    look(looks, clock)  # nothing is known yet: no sleep
    look(looks, clock, training_report=object())
    clock.now_s += 4 - LOOK_S
    look(looks, clock, training_report=object())
    assert clock.slept_s == []
    for _ in range(4):
        look(looks, clock)
    assert clock.slept_s == [1.875, 0.8125, 0.28125, 0.015625]
    look(looks, clock)  # it takes longer than the one before: looks are as frequent as they can be
    assert clock.slept_s[-1] == 0


def test_an_epoch_that_seemed_longer_is_not_waited_for(clock: Clock) -> None:
    """Of 2 s and of 6 s, in which the process may have stood still, the next one is expected after 2."""
    looks = RareLooks()
    for took_s in (0, 2, 6):
        clock.now_s += max(took_s - LOOK_S, 0)
        look(looks, clock, training_report=object())
    look(looks, clock)
    assert clock.slept_s == [(2 - LOOK_S) / 2]


def test_never_sleeps_longer_than_a_death_may_go_unnoticed(clock: Clock) -> None:
    looks = RareLooks()
    look(looks, clock, training_report=object())
    clock.now_s += 3600
    look(looks, clock, training_report=object())
    look(looks, clock)
    assert clock.slept_s == [train_looks.LONGEST_SLEEP_S]


@pytest.mark.parametrize("end", [{"running": False}, {"error": RuntimeError("killed")}])
def test_does_not_sleep_on_an_end(clock: Clock, end: dict[str, object]) -> None:
    looks = RareLooks()
    look(looks, clock, training_report=object())
    clock.now_s += 4
    look(looks, clock, training_report=object())
    look(looks, clock, **end)
    assert clock.slept_s == []
