"""Who is in which arm: the share asked for, the same for ever, and independent between experiments."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.experiments import Assignment, Experiments, is_in_share
from serving.settings import ExperimentSettings

PEOPLE = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_is_treated_up_to_chance(share: float) -> None:
    treated = sum(is_in_share("an experiment", person, share) for person in PEOPLE)
    deviation = (len(PEOPLE) * share * (1 - share)) ** 0.5
    assert abs(treated - len(PEOPLE) * share) < 4 * deviation


def test_everybody_can_be_treated() -> None:
    assert all(is_in_share("all", person, 1.0) for person in PEOPLE[:1000])


def test_two_experiments_divide_people_independently() -> None:
    """Pearson's chi-square of the four cells, 3 degrees of freedom: 21.1 is exceeded once in 10,000."""
    sides = [(is_in_share("one", person, 0.5), is_in_share("other", person, 0.5)) for person in PEOPLE]
    expected = len(PEOPLE) / 4
    counts = [sides.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False))]
    assert sum((count - expected) ** 2 / expected for count in counts) < 21.1


@given(st.text(), st.text(), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_who_is_treated_stays_so_while_the_share_grows(name: str, person: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert is_in_share(name, person, less) <= is_in_share(name, person, more)
    assert is_in_share(name, person, less) == is_in_share(name, person, less)


def test_known_answers() -> None:
    """By `printf 'deeper\\nperson' | sha256sum | cut -c1-16`, over 2^64: a change would move people between arms."""
    assert not is_in_share("deeper", "person", 0.216405 - 1e-5)
    assert is_in_share("deeper", "person", 0.216405 + 1e-5)


def test_modes() -> None:
    experiments = Experiments(
        {
            "tried": ExperimentSettings(model="churn", share=1, mode="ab"),
            "watched": ExperimentSettings(model="cdn", share=1, mode="shadow"),
            "rare": ExperimentSettings(model="anomaly", share=1e-12, mode="ab"),
        }
    )
    assert experiments.of("churn", "somebody") == Assignment("tried", "challenger", False)
    assert experiments.of("cdn", "somebody") == Assignment("watched", "champion", True)
    assert experiments.of("anomaly", "a series") == Assignment("rare", "champion", False)
    assert experiments.of("recommendation", "somebody") is None
    assert experiments.of("churn", None) is None
