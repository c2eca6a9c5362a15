"""The shape of a metric: a small causal network that says how the next value is distributed, given those before.

Dilated convolutions over the last values (van den Oord et al., "WaveNet", 2016; Bai et al., "An Empirical Evaluation of
Generic Convolutional and Recurrent Networks for Sequence Modeling", 2018), each looking back only. The answer is a
Student's t around a point between what the values and the seasonal baseline say, in the scale of the values.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.anomaly.contexts import SIDE, Contexts
from models.anomaly.predictive import FREEDOM, LOG_NORMALIZER, Predictive
from models.configuration import Hyperparameters

_KERNEL = 3
_DILATIONS = (1, 2, 4, 8)
_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True)
class ShapeConfig(Hyperparameters):
    """Everything that decides what is learnt from given rows."""

    of = "the anomaly model"

    epochs: int = 30
    patience: int = 4
    """Epochs without a better validation metric after which training stops."""
    lr: float = 3e-3
    weight_decay: float = 1e-2
    length: int = 48
    """Values that are looked at."""
    channels: int = 16
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        self._at_least(1, "epochs", "patience", "channels", "batch_size")
        self._at_least(8, "length")
        self._at_least(0, "seed", "weight_decay")
        self._require(self.lr > 0, "lr", "above 0")


class ShapeNetwork(nn.Module):
    """Scaled values [batch, length] and side [batch, SIDE] to location and log scale, [batch] each."""

    def __init__(self, config: ShapeConfig) -> None:
        super().__init__()
        self.config = config
        self.entry = nn.Conv1d(1, config.channels, 1)
        self.blocks = nn.ModuleList(
            nn.Conv1d(config.channels, config.channels, _KERNEL, dilation=dilation) for dilation in _DILATIONS
        )
        self.head = nn.Sequential(
            nn.Linear(config.channels + SIDE, 2 * config.channels), nn.GELU(), nn.Linear(2 * config.channels, 3)
        )

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """[batch, channels, length]: what is known at each value, of it and those before it."""
        hidden: torch.Tensor = self.entry(values[:, None, :])
        for block, dilation in zip(self.blocks, _DILATIONS, strict=True):
            padded = functional.pad(hidden, ((_KERNEL - 1) * dilation, 0))
            hidden = hidden + functional.gelu(block(padded))
        return hidden

    def forward(self, values: torch.Tensor, side: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the value after the last one."""
        hidden = torch.cat([self.encode(values)[:, :, -1], side], dim=1)
        mix, shift, log_scale = self.head(hidden).unbind(dim=1)
        share = torch.sigmoid(mix)  # between the last value and the baseline's expectation
        return share * values[:, -1] + (1 - share) * side[:, 0] + shift, log_scale


def log_density(location: torch.Tensor, log_scale: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[batch] nats, as `Predictive.log_density` has it."""
    z = (values - location) * torch.exp(-log_scale)
    return LOG_NORMALIZER - 0.5 * (FREEDOM + 1) * torch.log1p(z * z / FREEDOM) - log_scale


@torch.inference_mode()
def predicted(network: ShapeNetwork, contexts: Contexts, device: torch.device | str = "cpu") -> Predictive:
    """[n] what is expected after each context, in the metric's unit; the prior where nothing is known."""
    network.eval()
    locations, scales = [np.empty(0)], [np.empty(0)]
    for start in range(0, len(contexts), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        location, log_scale = network(
            torch.from_numpy(contexts.windows[rows]).to(device), torch.from_numpy(contexts.side[rows]).to(device)
        )
        locations.append(location.double().cpu().numpy())
        scales.append(log_scale.double().exp().cpu().numpy())
    unit = contexts.scale
    location, scale = np.concatenate(locations), np.concatenate(scales)
    return Predictive(
        np.where(contexts.is_known, unit.location + unit.scale * location, unit.location),
        np.where(contexts.is_known, unit.scale * scale, unit.scale),
    )
