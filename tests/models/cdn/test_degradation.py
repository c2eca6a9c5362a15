"""A planted degradation is noticed within a few sessions, usual noise is not, and recovery ends it."""

import numpy as np
import pytest

from models.cdn.degradation import Watch, Watches
from models.cdn.policy import steer_away

USUAL, DEVIATION = 82.0, 8.0


def scores(random: np.random.Generator, sessions: int, mean: float = USUAL) -> np.ndarray:
    return np.clip(random.normal(mean, DEVIATION, sessions), 0, 100)


def first_alarm(watch: Watch, values: np.ndarray) -> int | None:
    """After how many of these sessions the watch says degraded."""
    for number, value in enumerate(values, start=1):
        if watch.update(float(value)):
            return number
    return None


@pytest.mark.parametrize("seed", range(5))
def test_a_fall_by_two_deviations_is_noticed_within_fifteen_sessions(seed: int) -> None:
    """At ten sessions a minute over a network and region: within two minutes."""
    random, watch = np.random.default_rng(seed), Watch()
    assert first_alarm(watch, scores(random, 2_000)) is None
    assert 3 <= (first_alarm(watch, scores(random, 100, USUAL - 2 * DEVIATION)) or 100) <= 15


def test_recovery_is_noticed_as_fast_and_the_bad_hours_do_not_become_usual() -> None:
    random, watch = np.random.default_rng(9), Watch()
    first_alarm(watch, scores(random, 1_000))
    usual = watch.mean
    for value in scores(random, 3_000, USUAL - 3 * DEVIATION):
        watch.update(float(value))
    assert watch.degraded
    assert watch.mean == pytest.approx(usual, abs=0.5)
    recovered = [watch.update(float(value)) for value in scores(random, 50)]
    assert not recovered[-1]
    assert recovered.index(False) < 20


def test_usual_noise_of_a_day_raises_no_alarm() -> None:
    """40,000 sessions without a fault: about 0.3 alarms are expected by the formula of normal scores."""
    random, watch = np.random.default_rng(2), Watch()
    values = scores(random, 40_000)
    alarms = sum(watch.update(float(value)) and not before for before, value in _with_before(watch, values))
    assert alarms <= 2


def _with_before(watch: Watch, values: np.ndarray):
    for value in values:
        yield watch.degraded, value


def test_what_is_usual_equals_the_mean_and_variance_of_the_sessions() -> None:
    watch, values = Watch(), scores(np.random.default_rng(3), 400)
    for value in values:
        watch.update(float(value))
    assert watch.mean == pytest.approx(values.mean())
    assert watch.variance == pytest.approx(values.var())


def test_a_score_that_is_no_number_changes_nothing() -> None:
    watch = Watch()
    assert not watch.update(float("nan"))
    assert watch == Watch()


def test_one_region_of_one_network_degrades_and_new_sessions_are_steered_away_there_only() -> None:
    random, watches = np.random.default_rng(5), Watches()
    networks, regions = ("akamai", "fastly"), ("DE", "US")
    for _ in range(300):
        for cdn in networks:
            for region in regions:
                watches.update(cdn, region, float(scores(random, 1)[0]))
    for value in scores(random, 20, USUAL - 3 * DEVIATION):
        watches.update("akamai", "DE", float(value))
    degraded = np.array([[watches.degraded(cdn, region) for cdn in networks] for region in regions])
    assert degraded.tolist() == [[True, False], [False, False]]
    steered = steer_away(np.array([[0.9, 0.1], [0.9, 0.1]]), degraded)
    assert steered == pytest.approx(np.array([[0.02, 0.98], [0.9, 0.1]]))
    assert not watches.degraded("a new one", "DE")
