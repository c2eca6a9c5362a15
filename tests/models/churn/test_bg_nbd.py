"""The peer is the published one: its parameters, and its probabilities against a simulation of its own story."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.judged.cdnow import customers, read
from tests.benchmarks.peers.bg_nbd import BgNbd, Histories, fit
from tests.benchmarks.peers.cdnow_sample import sample


@pytest.mark.realdata
def test_reproduces_the_published_parameters_on_the_published_sample(shared_data: Path) -> None:
    """Fader, Hardie & Lee 2005, table 2: the 1/10 sample, 39 weeks from 1 January 1997."""
    log, _ = read(shared_data / "cdnow")
    chosen = np.array(sample()) - 1
    assert len(chosen) == 2_357
    everyone = customers(log, 39 * 7)
    found = fit(Histories(everyone.x[chosen], everyone.t_x[chosen], everyone.T[chosen]))
    assert (round(found.r, 3), round(found.alpha, 3), round(found.a, 3), round(found.b, 3)) == (
        0.243,
        4.414,
        0.793,
        2.426,
    )


def test_probability_of_no_purchase_is_what_its_own_story_gives() -> None:
    """300,000 customers who live by the model, those with two repeats in 20 weeks, the last in weeks 8 to 12."""
    model = BgNbd(r=0.8, alpha=4.0, a=0.7, b=2.5)
    random = np.random.default_rng(2)
    count, until, horizon = 300_000, 20.0, 10.0
    rate, stops = random.gamma(model.r, 1 / model.alpha, count), random.beta(model.a, model.b, count)
    now, alive = np.zeros(count), np.ones(count, bool)
    repeats, last, later = np.zeros(count), np.zeros(count), np.zeros(count, bool)
    while (alive & (now < until + horizon)).any():
        now = np.where(alive, now + random.exponential(1, count) / np.maximum(rate, 1e-12), np.inf)
        before = now < until
        repeats, last = repeats + before, np.where(before, now, last)
        later |= (now >= until) & (now < until + horizon)
        alive &= (now < until + horizon) & (random.random(count) >= stops)
    like = (repeats == 2) & (last > 8) & (last < 12)
    assert like.sum() > 2_000
    told = Histories(np.full(like.sum(), 2.0), last[like], np.full(like.sum(), until))
    observed, error = 1 - later[like].mean(), 0.5 / np.sqrt(like.sum())
    assert model.buys_nothing(told, horizon).mean() == pytest.approx(observed, abs=4 * error)


def test_who_never_bought_again_may_still_be_active() -> None:
    model = BgNbd(r=0.25, alpha=4.5, a=0.8, b=2.4)
    one = Histories(np.array([0.0]), np.array([0.0]), np.array([30.0]))
    assert model.is_active(one).tolist() == [1.0]
    assert model.buys_nothing(one, 10.0) == pytest.approx((34.5 / 44.5) ** 0.25)
