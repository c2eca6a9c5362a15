"""What may be published: a policy that the log says is better, by more than noise, and no other."""

import numpy as np

from models.cdn.gate import judge
from models.cdn.off_policy import ChoiceLog

ROWS = 2_000
MEANS = np.array([0.5, 0.6, 0.4])
LOGGING = np.array([0.5, 0.3, 0.2])


def logged(seed: int, propensities: np.ndarray = LOGGING) -> ChoiceLog:
    random = np.random.default_rng(seed)
    arm = random.choice(3, ROWS, p=LOGGING)
    return ChoiceLog(arm, propensities[arm], random.normal(MEANS[arm], 0.3), np.arange(ROWS))


def policy(*shares: float) -> np.ndarray:
    return np.broadcast_to(np.array(shares), (ROWS, 3))


EXPECTED = policy(0.5, 0.5, 0.5)


def test_a_better_policy_may_be_published_and_its_gain_is_the_true_one() -> None:
    verdict = judge(logged(1), policy(0.1, 0.8, 0.1), policy(*LOGGING), EXPECTED, seed=1)
    assert verdict.may_publish
    assert verdict.objections == ()
    true_gain = (0.05 + 0.48 + 0.04) - (0.25 + 0.18 + 0.08)
    assert verdict.gain.low <= true_gain <= verdict.gain.high


def test_the_running_policy_is_not_better_than_itself() -> None:
    verdict = judge(logged(1), policy(*LOGGING), policy(*LOGGING), EXPECTED, seed=1)
    assert not verdict.may_publish
    assert "not above the running policy's by more than noise: +0 " in verdict.objections[0]


def test_a_worse_one_may_not() -> None:
    assert not judge(logged(2), policy(0.1, 0.1, 0.8), policy(*LOGGING), EXPECTED, seed=1).may_publish


def test_noise_is_rarely_taken_for_a_gain() -> None:
    """Two policies of the same value: 2.5 % of the gates let one through, of 20 seldom more than 2."""
    passed = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        arm = random.choice(2, 200)
        log = ChoiceLog(arm, np.full(200, 0.5), random.normal(0.5, 0.3, 200), np.arange(200))
        ours, theirs = (np.broadcast_to(np.array(shares), (200, 2)) for shares in ((0.9, 0.1), (0.1, 0.9)))
        passed += judge(log, ours, theirs, np.zeros((200, 2)), seed).may_publish
    assert passed <= 2


def test_propensities_that_are_wrong_are_noticed() -> None:
    verdict = judge(logged(3, np.array([0.2, 0.6, 0.2])), policy(0.8, 0.1, 0.1), policy(*LOGGING), EXPECTED, seed=1)
    assert any("instead of 1" in objection for objection in verdict.objections)


def test_a_log_that_says_too_little_is_no_reason() -> None:
    rare = np.array([0.99, 0.005, 0.005])
    random = np.random.default_rng(4)
    arm = random.choice(3, ROWS, p=rare)
    log = ChoiceLog(arm, rare[arm], random.normal(MEANS[arm], 0.3), np.arange(ROWS))
    verdict = judge(log, policy(0.0, 1.0, 0.0), policy(*rare), EXPECTED, seed=1)
    assert any("rows of its own would, needed are 100" in objection for objection in verdict.objections)
