"""The two softmax losses: over every title, and estimated from some of them."""

from typing import Any

import torch

_PLACES_AT_ONCE = 512  # scores of 512 places and some thousand titles stay in a processor's cache


def cross_entropy(hidden: torch.Tensor, titles: torch.Tensor, bias: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The summed softmax cross-entropy in nats when every title is scored; a scalar.

    The scores of all places are never in memory at once: each stretch of places gives its loss and its gradients
    while its scores are in cache, which takes half the time and no more memory than the embeddings.

    Args:
        hidden: [n, dim], what is known at each place.
        titles: [titles, dim], the embeddings that it is scored with.
        bias: [titles].
        wanted: [n] int64, the title that followed.
    """
    loss: torch.Tensor = _CrossEntropy.apply(hidden, titles, bias, wanted)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """The gradient of the loss by the scores is `softmax - one at the wanted title`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, titles: torch.Tensor, bias: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """The summed loss in nats; the gradients are worked out with it, while the scores are there."""
        loss = hidden.new_zeros(())
        by_hidden, by_titles, by_bias = torch.empty_like(hidden), torch.zeros_like(titles), torch.zeros_like(bias)
        for start in range(0, len(hidden), _PLACES_AT_ONCE):
            places = slice(start, start + _PLACES_AT_ONCE)
            own = wanted[places, None]
            scores = torch.addmm(bias, hidden[places], titles.T)
            highest = scores.amax(dim=1, keepdim=True)
            own_scores = scores.gather(1, own)
            shares = scores.sub_(highest).exp_()
            total = shares.sum(dim=1, keepdim=True)
            loss += (total.log() + highest - own_scores).sum()
            by_scores = shares.div_(total)
            by_scores.scatter_add_(1, own, torch.full_like(own_scores, -1.0))
            torch.mm(by_scores, titles, out=by_hidden[places])
            by_titles.addmm_(by_scores.T, hidden[places])
            by_bias += by_scores.sum(dim=0)
        ctx.save_for_backward(by_hidden, by_titles, by_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *by_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_hidden, by_titles, by_bias = ctx.saved_tensors
        return by_loss[0] * by_hidden, by_loss[0] * by_titles, by_loss[0] * by_bias, None


def sampled_cross_entropy(positive: torch.Tensor, drawn: torch.Tensor, log_expected: torch.Tensor) -> torch.Tensor:
    """The summed softmax cross-entropy when only some titles are scored; a scalar.

    `exp(positive) + sum_j exp(drawn_j) / expected_j` is an unbiased estimate of the softmax's denominator when
    title j is expected `expected_j` times in the draw (importance sampling, Bengio & Senecal, 2008, IEEE TNN 19(4),
    known as the logQ correction). The positive is there for certain, so it is not corrected; draws that hit it are
    left out by the caller (-inf).

    Args:
        positive: [n], the wanted title's score.
        drawn: [n, draws], the drawn titles' scores.
        log_expected: [draws].
    """
    logits = torch.cat([positive[:, None], drawn - log_expected[None, :]], dim=1)
    return (logits.logsumexp(dim=1) - positive).sum()
