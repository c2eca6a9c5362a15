"""The network: causal, blind to padding, and its losses equal to their definitions."""

import math

import pytest
import torch

from models.errors import ConfigurationError
from models.recommendation.model import RecommenderConfig, SASRec

SMALL = RecommenderConfig(dim=8, blocks=2, heads=2, max_length=10, dropout=0.5)


@pytest.fixture
def model() -> SASRec:
    torch.manual_seed(0)
    return SASRec(6, SMALL).eval()


def test_what_comes_later_changes_nothing_before(model: SASRec) -> None:
    one, other = torch.tensor([[6, 1, 2, 3]]), torch.tensor([[6, 1, 4, 5]])
    hidden, changed = model.encode(one), model.encode(other)
    assert torch.allclose(hidden[:, :2], changed[:, :2], atol=1e-6)
    assert not torch.allclose(hidden[:, 2], changed[:, 2], atol=1e-3)


def test_padding_changes_nothing(model: SASRec) -> None:
    alone = model.encode(torch.tensor([[6, 1, 2]]))
    padded = model.encode(torch.tensor([[6, 1, 2, 6, 6], [6, 3, 4, 5, 0]]))
    assert torch.allclose(alone[0], padded[0, :3], atol=1e-5)


def test_order_matters(model: SASRec) -> None:
    forwards, backwards = model.encode(torch.tensor([[6, 1, 2]])), model.encode(torch.tensor([[6, 2, 1]]))
    assert not torch.allclose(forwards[0, 2], backwards[0, 2], atol=1e-3)


def test_loss_is_the_cross_entropy_of_the_learnt_targets(model: SASRec) -> None:
    inputs, targets = torch.tensor([[6, 1, 2], [6, 4, 6]]), torch.tensor([[1, 2, 3], [4, 5, 0]])
    learnt = torch.tensor([[False, True, True], [True, False, False]])
    expected = 0.0
    for row, at in ((0, 1), (0, 2), (1, 0)):
        scores = model.scores(model.encode(inputs))[row, at].tolist()
        total = sum(math.exp(score) for score in scores)
        expected -= math.log(math.exp(scores[int(targets[row, at])]) / total)
    assert model(inputs, targets, learnt).item() == pytest.approx(expected, rel=1e-5)
    assert model(inputs, targets, torch.zeros_like(learnt)).item() == 0


def test_sampled_loss_over_every_title_is_the_full_loss(model: SASRec) -> None:
    inputs, targets = torch.tensor([[6, 1, 2]]), torch.tensor([[1, 2, 3]])
    learnt = torch.ones_like(inputs, dtype=torch.bool)
    everything, certain = torch.arange(6), torch.zeros(6)  # each drawn once for certain: log 1
    sampled = model(inputs, targets, learnt, everything, certain)
    assert sampled.item() == pytest.approx(model(inputs, targets, learnt).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"dim": 0}, "dim must be at least 1"),
        ({"dim": 9, "heads": 2}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"lr": 0}, "lr must be above 0"),
        ({"averaging": 1}, r"averaging must be in \[0, 1\): received 1"),
        ({"recent": 0}, "recent must be at least 1"),
        ({"epochs": 3, "cooldown": 4}, r"cooldown must be from 0 to epochs \(3\): received 4"),
        ({"lr": "fast"}, "lr must be a number: received 'fast'"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"dims": 8}, "unknown settings.*dims"),
    ],
)
def test_configuration_is_checked(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RecommenderConfig.from_dict(values)


def test_configuration_survives_its_dictionary() -> None:
    assert RecommenderConfig.from_dict(SMALL.as_dict()) == SMALL


def test_the_learning_rate_falls_over_the_last_epochs() -> None:
    config = RecommenderConfig(lr=0.1, epochs=6, cooldown=3)
    assert [config.lr_of(epoch) for epoch in range(1, 7)] == pytest.approx([0.1, 0.1, 0.1, 0.07, 0.04, 0.01])
    assert RecommenderConfig(lr=0.1, epochs=2).lr_of(2) == 0.1


def test_a_place_mixes_the_ones_just_before_it(model: SASRec) -> None:
    block, hidden = model.blocks[0], torch.randn(2, 4, 8)
    with torch.no_grad():
        block.recent.copy_(torch.tensor([0.5, 2.0, -1.0])[:, None].expand(3, 8))  # type: ignore[operator]
    mixed = block._of_recent(hidden)  # type: ignore[operator]
    expected = 0.5 * hidden[:, 3] + 2.0 * hidden[:, 2] - hidden[:, 1]
    torch.testing.assert_close(mixed[:, 3], expected)
    torch.testing.assert_close(mixed[:, 0], 0.5 * hidden[:, 0])
