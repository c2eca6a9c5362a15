"""Training sets, declared: `TrainingSet` and the words it is made of (see the README beside this).

`pipelines.training_sets` builds them.
"""

from features.training.candidates import Catalogue, SeenIn
from features.training.declaration import TrainingSet
from features.training.events import events_of
from features.training.labels import Happened, Label
from features.training.sampling import Balance, Negatives, Sampling
from features.training.spine import Every, FileRows, PerEvent, TableRows
from features.training.splits import SPLITS, SplitAt, SplitByShare

__all__ = [
    "SPLITS", "Balance", "Catalogue", "Every", "FileRows", "Happened", "Label", "Negatives", "PerEvent", "Sampling",
    "SeenIn", "SplitAt", "SplitByShare", "TableRows", "TrainingSet", "events_of",
]  # fmt: skip
