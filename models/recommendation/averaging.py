"""The running mean of a model's weights over its last steps, which ranks better than any one step's weights do.

An exponential mean (Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992): it takes out the
noise that a learning rate leaves in the weights, as lowering the rate would, but needs no plan of how long to train.
"""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class AveragedWeights(Generic[Model]):
    """Follows a model, step by step."""

    def __init__(self, model: Model, decay: float) -> None:
        """Starts at the model's weights.

        Args:
            model: the model to follow.
            decay: share of the mean that a step keeps, in [0, 1); it remembers about 1 / (1 - decay) steps.
        """
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        """The model with the averaged weights."""
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Takes in the weights of `model` after a step."""
        self._steps += 1
        # Of few steps the mean is over the last tenth at most, so that it forgets where the weights started.
        kept = min(self._decay, self._steps / (self._steps + 10))
        for mean, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 1 - kept)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {"weights": self.model.state_dict(), "steps": self._steps}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.model.load_state_dict(state["weights"])
        self._steps = state["steps"]
