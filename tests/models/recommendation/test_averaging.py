"""The running mean of weights, by hand."""

import torch
from torch import nn

from models.recommendation.averaging import AveragedWeights


def weights_of(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def mean_of(averaged: AveragedWeights) -> float:
    return float(averaged.model.weight)  # type: ignore[arg-type]


def test_the_mean_keeps_its_share_at_every_step() -> None:
    averaged = AveragedWeights(weights_of(1.0), decay=0.1)
    averaged.follow(weights_of(2.0))  # of the first step 1 / 11 is kept, which is less than 0.1
    first = 1 / 11 * 1.0 + 10 / 11 * 2.0
    assert abs(mean_of(averaged) - first) < 1e-6
    averaged.follow(weights_of(4.0))  # from now on 0.1
    assert abs(mean_of(averaged) - (0.1 * first + 0.9 * 4.0)) < 1e-6


def test_it_forgets_where_the_weights_started() -> None:
    averaged = AveragedWeights(weights_of(100.0), decay=0.998)
    for _ in range(30):
        averaged.follow(weights_of(1.0))
    assert abs(mean_of(averaged) - 1.0) < 1e-4


def test_it_goes_on_where_it_was() -> None:
    whole = AveragedWeights(weights_of(0.0), decay=0.9)
    for value in (1.0, 2.0, 3.0):
        whole.follow(weights_of(value))
        if value == 2.0:
            state = {"weights": {k: v.clone() for k, v in whole.state()["weights"].items()}, "steps": 2}
    assert whole.state()["steps"] == 3
    again = AveragedWeights(weights_of(7.0), decay=0.9)
    again.resume(state)
    again.follow(weights_of(3.0))
    assert mean_of(again) == mean_of(whole)


def test_the_followed_model_is_left_alone() -> None:
    model = weights_of(1.0)
    averaged = AveragedWeights(model, decay=0.5)
    averaged.follow(weights_of(3.0))
    assert model.weight.tolist() == [[1.0]]
    assert model.weight.requires_grad
    assert not any(weight.requires_grad for weight in averaged.model.parameters())
    assert torch.is_grad_enabled()
