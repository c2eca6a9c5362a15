import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.anomaly.debounce import Debounce, debounced
from models.anomaly.errors import NotFiniteError
from models.anomaly.novelty import Novelty, NoveltyConfig, Recent, novelty_scores
from models.errors import ConfigurationError

SMALL = NoveltyConfig(lengths=(1, 3), memory=30, warm_up=5)
values = st.lists(st.integers(-5, 5).map(float), min_size=0, max_size=80)


def naive_scores(series: list[float], config: NoveltyConfig) -> list[float]:
    """From scratch at every value, in the words of the module."""
    distances: dict[int, list[float]] = {length: [] for length in config.lengths}
    evidences: list[float] = []
    scores = []
    for end in range(1, len(series) + 1):
        known = series[max(0, end - config.memory) : end]
        evidence = 0.0
        for length in config.lengths:
            latest = known[-length:]
            past = [known[at : at + length] for at in range(len(known) - 2 * length + 1)]
            if past:
                nearest = min(sum((a - b) ** 2 for a, b in zip(one, latest, strict=True)) for one in past)
                evidence = max(evidence, naive_rank(distances[length], nearest, config))
        scores.append(naive_rank(evidences, evidence, config))
    return scores


def naive_rank(before: list[float], amount: float, config: NoveltyConfig) -> float:
    lately = before[-config.memory :]
    before.append(amount)
    if len(lately) < config.warm_up:
        return 0.0
    return float(-np.log10((sum(one >= amount for one in lately) + 1) / (len(lately) + 1)))


@given(values)
@settings(max_examples=50, deadline=None)
def test_it_is_what_it_says(series: list[float]) -> None:
    assert novelty_scores(series, SMALL) == pytest.approx(naive_scores(series, SMALL))


@given(values, values, values)
@settings(max_examples=50, deadline=None)
def test_the_future_does_not_change_a_score(past: list[float], one: list[float], other: list[float]) -> None:
    until = len(past)
    assert novelty_scores(past + one, SMALL)[:until].tolist() == novelty_scores(past + other, SMALL)[:until].tolist()


@given(values, values)
@settings(max_examples=50, deadline=None)
def test_a_state_goes_on_where_it_was(past: list[float], future: list[float]) -> None:
    novelty = Novelty(SMALL)
    for value in past:
        novelty.score(value)
    resumed = Novelty.resume(json.loads(json.dumps(novelty.state())), SMALL)
    assert [resumed.score(value) for value in future] == [novelty.score(value) for value in future]


@given(st.lists(st.integers(-5, 5).map(float), min_size=20, max_size=60), st.sampled_from([0.25, 8.0, 1024.0]))
@settings(max_examples=50, deadline=None)
def test_the_unit_of_a_metric_does_not_matter(series: list[float], unit: float) -> None:
    scaled = [value * unit + 3 * unit for value in series]
    assert novelty_scores(scaled, SMALL).tolist() == novelty_scores(series, SMALL).tolist()


def test_one_in_a_hundred_reaches_2_where_nothing_changes() -> None:
    scores = novelty_scores(np.random.default_rng(1).normal(size=4000))
    assert np.mean(scores[400:] >= 2) == pytest.approx(0.01, abs=0.005)


def test_a_value_never_seen_and_a_shape_never_seen_are_new() -> None:
    wave = np.tile(np.round(10 * np.sin(2 * np.pi * np.arange(60) / 60)), 20)
    assert novelty_scores(wave)[120:].max() == 0, "it comes back to the bit"
    outlier = wave.copy()
    outlier[900] = 25.0
    assert novelty_scores(outlier).argmax() == 900
    jump = wave.copy()
    jump[900:] = np.roll(wave, 25)[900:]  # most of a wave is skipped: values as ever, one step as never
    assert np.argmax(novelty_scores(jump, NoveltyConfig(lengths=(2,)))) == 900


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(NotFiniteError, match=f"received {value}"):
        Novelty().score(value)


def test_a_configuration_or_state_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lengths"):
        NoveltyConfig(lengths=())
    with pytest.raises(ConfigurationError, match="memory 2"):
        NoveltyConfig(lengths=(2,), memory=2)
    with pytest.raises(ConfigurationError, match=r"lengths \[1, 3\]"):
        Novelty.resume(Novelty(SMALL).state(), NoveltyConfig(lengths=(1,)))


@given(st.lists(st.integers(0, 9).map(float)), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_recent_values_are_the_last_ones(series: list[float], capacity: int) -> None:
    recent = Recent(capacity)
    for count, value in enumerate(series, 1):
        recent.append(value)
        assert recent.values.tolist() == series[max(0, count - capacity) : count]
        assert len(recent) == min(count, capacity)


@given(st.lists(st.integers(0, 6).map(float)), st.integers(1, 10), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_debounce_lets_through_what_is_above_all_lately(scores: list[float], rows: int, cut: int) -> None:
    expected = [
        score if all(score > earlier for earlier in scores[max(0, row - rows) : row]) else 0.0
        for row, score in enumerate(scores)
    ]
    assert debounced(scores, rows).tolist() == expected
    debounce, resumed = Debounce(rows), Debounce(rows)
    for score in scores[:cut]:
        debounce.passed(score)
    resumed.resume(json.loads(json.dumps(debounce.state())))
    assert [resumed.passed(score) for score in scores[cut:]] == expected[cut:]
