"""The ranker's task: from a viewer, a title and the moment to whether it is watched past the half when shown."""

from features.purposes import Purpose
from models.ranker.model import RankerConfig
from models.ranker.shown import COLUMNS
from models.ranker.training import BASELINE, WATCHED, RankerTraining
from models.task import Task

TASK = Task(
    name="ranker",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=COLUMNS,
    configure=RankerConfig.from_dict,
    start=RankerTraining,
    loader="models.ranker.pyfunc",
)
