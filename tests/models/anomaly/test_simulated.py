"""What the simulator plants in its delivery networks is told within an hour, and little else is told."""

from dataclasses import replace

from tests.benchmarks.judged.simulator_anomaly import ALARMS_A_DAY, CONFIG, watched


def test_planted_degradations_are_told_at_once_again_and_again() -> None:
    found, oracles = watched(replace(CONFIG, seed=1))
    assert found.incidents >= 8
    assert found.recall >= 0.9
    assert found.median_delay_ms == 0, "the hour that it begins in"
    assert found.false_alarms_a_day <= ALARMS_A_DAY
    assert oracles.recall == 1, "twelve times the stalls are no chance"
    assert oracles.false_alarms_a_day <= ALARMS_A_DAY
