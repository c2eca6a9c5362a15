"""The losses against their definitions."""

import math

import pytest
import torch
from torch.nn import functional

from models.recommendation.softmax import cross_entropy, sampled_cross_entropy


@pytest.mark.parametrize("places", [1, 512, 1_100])
def test_loss_and_gradients_are_those_of_torchs_own(places: int) -> None:
    torch.manual_seed(places)
    wanted = torch.randint(0, 7, (places,))
    made = [torch.randn(places, 5), torch.randn(7, 5), 3 * torch.randn(7)]
    ours = [tensor.clone().requires_grad_() for tensor in made]
    theirs = [tensor.clone().requires_grad_() for tensor in made]
    hidden, titles, bias = theirs
    expected = functional.cross_entropy(hidden @ titles.T + bias, wanted, reduction="sum")
    loss = cross_entropy(*ours, wanted)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (loss / 10).backward()
    (expected / 10).backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_scores_too_large_for_their_exponential_are_no_trouble() -> None:
    hidden = torch.tensor([[1e4]])
    loss = cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.zeros(2), torch.tensor([1]))
    assert loss.item() == pytest.approx(2e4)


def test_no_place_no_loss() -> None:
    titles = torch.randn(3, 2, requires_grad=True)
    loss = cross_entropy(torch.empty(0, 2), titles, torch.zeros(3), torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert titles.grad is not None
    assert titles.grad.abs().sum() == 0


def test_sampled_denominator_is_unbiased() -> None:
    """exp(loss + positive) estimates the softmax's denominator: averaged over draws it is the true one."""
    torch.manual_seed(1)
    scores = torch.randn(8)
    wanted, draws = 3, 4
    share = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    negatives = torch.multinomial(share, 20_000 * draws, replacement=True).view(-1, draws)
    denominators = []
    for drawn in negatives[:5_000]:
        own = scores[drawn].masked_fill(drawn == wanted, float("-inf"))[None]
        loss = sampled_cross_entropy(scores[wanted][None], own, torch.log(draws * share[drawn]))
        denominators.append(math.exp(loss.item() + scores[wanted].item()))
    estimates = torch.tensor(denominators)
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - scores.exp().sum()) < 3 * error
