"""The content model's task: from what is written of a title to who watches it."""

from features.purposes import Purpose
from models.content.model import ContentConfig
from models.content.training import BASELINE, WATCHED, ContentTraining
from models.content.watches import COLUMNS
from models.task import Task

TASK = Task(
    name="content",
    purpose=Purpose.PERSONALIZATION,
    watched=WATCHED,
    baseline=BASELINE,
    columns=COLUMNS,
    configure=ContentConfig.from_dict,
    start=ContentTraining,
    loader="models.content.pyfunc",
)
