"""Off-policy estimates against the published formulas by hand, and against values that are known."""

import numpy as np
import pytest

from models.cdn.off_policy import ChoiceLog, doubly_robust, estimate
from models.errors import ChoiceLogError

# (arm, its logged propensity, reward, the policy's probabilities, expected rewards): 20 choices between two arms.
ROWS = [
    (0, 0.50, 1.0, (0.2, 0.8), (0.6, 0.4)),
    (1, 0.50, 0.0, (0.2, 0.8), (0.6, 0.4)),
    (0, 0.25, 0.0, (0.5, 0.5), (0.5, 0.1)),
    (1, 0.75, 1.0, (0.5, 0.5), (0.5, 0.1)),
    (0, 0.80, 1.0, (1.0, 0.0), (0.9, 0.2)),
    (1, 0.20, 0.0, (1.0, 0.0), (0.9, 0.2)),
    (0, 0.10, 1.0, (0.3, 0.7), (0.0, 0.0)),
    (1, 0.90, 1.0, (0.3, 0.7), (0.0, 1.0)),
    (0, 0.50, 0.0, (0.6, 0.4), (0.3, 0.3)),
    (1, 0.50, 1.0, (0.6, 0.4), (0.3, 0.3)),
] * 2  # fmt: skip
ARMS, PROPENSITIES, REWARDS, POLICY, EXPECTED = (np.array(column) for column in zip(*ROWS, strict=True))
LOG = ChoiceLog(ARMS, PROPENSITIES, REWARDS, np.arange(20))


def test_equals_the_formulas_by_hand_on_twenty_rows() -> None:
    # Weights of the first ten: .4 1.6 2 2/3 1.25 0 3 7/9 1.2 .8; the second ten are the same.
    weights = 0.4 + 1.6 + 2 + 2 / 3 + 1.25 + 0 + 3 + 7 / 9 + 1.2 + 0.8
    weighted_rewards = 0.4 + 2 / 3 + 1.25 + 3 + 7 / 9 + 0.8
    direct = (
        (0.2 * 0.6 + 0.8 * 0.4) * 2 + (0.5 * 0.5 + 0.5 * 0.1) * 2 + 0.9 * 2
        + 0 + 0.7 * 1.0 + (0.6 * 0.3 + 0.4 * 0.3) * 2
    )  # fmt: skip
    corrections = (
        0.4 * (1 - 0.6) + 1.6 * (0 - 0.4) + 2 * (0 - 0.5) + 2 / 3 * (1 - 0.1) + 1.25 * (1 - 0.9) + 0 + 3 * (1 - 0)
        + 7 / 9 * (1 - 1) + 1.2 * (0 - 0.3) + 0.8 * (1 - 0.3)
    )  # fmt: skip
    found = estimate(LOG, POLICY, EXPECTED, seed=1)
    assert found.ips.mean == pytest.approx(weighted_rewards / 10)
    assert found.snips.mean == pytest.approx(weighted_rewards / weights)
    assert found.dr.mean == pytest.approx((direct + corrections) / 10)
    assert found.mean_weight.mean == pytest.approx(weights / 10)
    squares = 0.16 + 2.56 + 4 + 4 / 9 + 1.5625 + 9 + 49 / 81 + 1.44 + 0.64
    assert found.effective_rows == pytest.approx(2 * weights**2 / squares)


def simulated(rows: int, seed: int) -> tuple[ChoiceLog, np.ndarray, np.ndarray, float]:
    """A log of three arms in a context, another policy, a wrong reward model, and the policy's true value."""
    random = np.random.default_rng(seed)
    context = random.random(rows)
    truth = np.stack([0.2 + 0.5 * context, 0.7 - 0.5 * context, np.full(rows, 0.4)], axis=1)
    logging = np.stack([0.2 + 0.2 * context, 0.5 - 0.2 * context, np.full(rows, 0.3)], axis=1)
    arm = (logging.cumsum(axis=1) > random.random(rows)[:, None]).argmax(axis=1)
    reward = (random.random(rows) < truth[np.arange(rows), arm]).astype(float)
    policy = np.where((context > 0.5)[:, None], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1])
    value = 0.5 * ((0.8 * 0.575 + 0.1 * 0.325 + 0.04) + (0.1 * 0.325 + 0.8 * 0.575 + 0.04))
    log = ChoiceLog(arm, logging[np.arange(rows), arm], reward, np.arange(rows))
    return log, policy, np.broadcast_to([0.4, 0.5, 0.1], truth.shape), value


def test_intervals_cover_the_true_value_as_often_as_they_promise() -> None:
    """Of 30 logs 28.5 are expected to; fewer than 25 would come twice in a hundred times."""
    covered = dict.fromkeys(("ips", "snips", "dr"), 0)
    for seed in range(30):
        log, policy, expected, value = simulated(300, seed)
        found = estimate(log, policy, expected, seed=seed)
        for name in covered:
            interval = getattr(found, name)
            covered[name] += interval.low <= value <= interval.high
    assert min(covered.values()) >= 25


def test_a_perfect_reward_model_leaves_less_noise_than_none() -> None:
    log, policy, _, _ = simulated(2_000, 3)
    exact = np.stack([0.5 * np.ones(2_000), 0.45 * np.ones(2_000), 0.4 * np.ones(2_000)], axis=1)
    with_model, without = (doubly_robust(log, policy, model).std() for model in (exact, np.zeros_like(exact)))
    assert with_model < 0.85 * without


def test_rows_of_one_unit_widen_the_interval() -> None:
    once = estimate(LOG, POLICY, EXPECTED, seed=1)
    twins = ChoiceLog(ARMS, PROPENSITIES, REWARDS, np.arange(20) % 10)  # each row and its double are one draw
    together = estimate(twins, POLICY, EXPECTED, seed=1)
    assert together.ips.high - together.ips.low > 1.2 * (once.ips.high - once.ips.low)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"propensity": np.where(np.arange(20) == 3, 0.0, PROPENSITIES)}, "1 of 20 propensities .* such as 0.0"),
        ({"propensity": np.full(20, np.nan)}, "20 of 20 propensities"),
        ({"reward": np.full(20, np.nan)}, "20 of 20 rewards"),
        ({"unit": np.arange(3)}, "20 choices came with 3 of unit"),
        ({"arm": ARMS[:0], "propensity": PROPENSITIES[:0], "reward": REWARDS[:0], "unit": ARMS[:0]}, "no row"),
    ],
)
def test_what_is_no_log_is_named(changed: dict[str, np.ndarray], words: str) -> None:
    parts = {"arm": ARMS, "propensity": PROPENSITIES, "reward": REWARDS, "unit": np.arange(20)}
    with pytest.raises(ChoiceLogError, match=words):
        ChoiceLog(**(parts | changed))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (POLICY[:5], r"shape \(5, 2\)"),
        (POLICY[:, :1], "the policy knows 0 to 0"),
        (POLICY * 0.9, "do not sum to 1"),
        (POLICY * 3 - 1, "negative"),
        (np.where(ARMS[:, None] == [0, 1], 0.0, 1.0), "never makes a choice that was logged"),
    ],
)
def test_what_is_no_policy_is_named(policy: np.ndarray, words: str) -> None:
    with pytest.raises(ChoiceLogError, match=words):
        estimate(LOG, policy, EXPECTED[: len(policy), : policy.shape[1]], seed=1)


def test_expectations_that_are_missing_are_named() -> None:
    with pytest.raises(ChoiceLogError, match=r"not \[20, 2\] numbers"):
        doubly_robust(LOG, POLICY, np.full((20, 2), np.nan))
