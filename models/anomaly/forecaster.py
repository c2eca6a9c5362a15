"""The anomaly model as it is saved, loaded and asked: a folder of three files, readable without any code of ours.

config.json    {"format": 1, "architecture": "causal-shape", "config": {...}, "prior": [location, scale]}
segments.json  the past of each segment, up to the end of validation
weights.pt     the state dict, loaded with weights_only=True
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from models.anomaly.contexts import ContextBuilder, Contexts, Past, Prior, contexts_of
from models.anomaly.predictive import Predictive
from models.anomaly.shape import ShapeConfig, ShapeNetwork, predicted
from models.saved import describe, described, whole

FORMAT, ARCHITECTURE = 1, "causal-shape"
CONFIG_FILE, SEGMENTS_FILE, WEIGHTS_FILE = "config.json", "segments.json", "weights.pt"


class Forecaster:
    """Says what is expected next of each segment."""

    def __init__(self, network: ShapeNetwork, pasts: Mapping[str, Past], prior: Prior) -> None:
        self.network, self.pasts, self.prior = network.eval(), dict(pasts), prior

    def contexts(
        self, segments: npt.NDArray[np.object_], at_ms: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
    ) -> Contexts:
        """[n] of values that came after the past that is kept, in any order. Nothing is learnt from them.

        Raises:
            NotFiniteError: a value is infinite or not a number.
        """
        pasts = {segment: self.pasts[segment].copy() for segment in np.unique(segments) if segment in self.pasts}
        return contexts_of(segments, at_ms, values, pasts, self.network.config.length, self.prior)

    def predicted(self, contexts: Contexts) -> Predictive:
        """[n] the distribution of the value of each context."""
        return predicted(self.network, contexts)

    def expected(self, segment: str, at_ms: int | None, history: list[float] | None) -> Contexts:
        """The context of one value to come: after `history` if that is given, else after the past that is kept."""
        known = self.pasts.get(segment, Past())
        past = known if history is None else Past([float(value) for value in history], known.baseline)
        builder = ContextBuilder(self.network.config.length, self.prior)
        builder.append(past, known.newest_ms if at_ms is None else at_ms)
        return builder.built()

    def save(self, folder: Path) -> None:
        """Writes the three files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: value.cpu() for name, value in self.network.state_dict().items()}, folder / WEIGHTS_FILE)
        pasts = {segment: past.state() for segment, past in sorted(self.pasts.items())}
        (folder / SEGMENTS_FILE).write_text(json.dumps(pasts))
        facts = {"config": self.network.config.as_dict(), "prior": [self.prior.location, self.prior.scale]}
        describe(folder / CONFIG_FILE, FORMAT, ARCHITECTURE, **facts)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The forecaster that `save` wrote.

        Raises:
            ModelFolderError: a file is missing or broken, or the format is one this version does not read.
        """
        folder = Path(folder)
        with whole(folder, "anomaly model"):
            description = described(folder / CONFIG_FILE, FORMAT, ARCHITECTURE)
            network = ShapeNetwork(ShapeConfig.from_dict(description["config"]))
            network.load_state_dict(torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True))
            states = json.loads((folder / SEGMENTS_FILE).read_text())
            pasts = {name: Past.resume(state) for name, state in states.items()}
            return cls(network, pasts, Prior(*description["prior"]))
