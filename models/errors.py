"""Named failures of `models`: each says what was wrong, what was received and how to mend it."""

from collections.abc import Sequence
from typing import Any


class ModelError(Exception):
    """Base of every failure that `models` raises on purpose. It keeps its message when pickled between processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made again by calling its class with the message, which needs other arguments.
        return _revive, (type(self), self.args)


def _revive(kind: type[ModelError], arguments: tuple[Any, ...]) -> ModelError:
    return kind.__new__(kind, *arguments)


class ConfigurationError(ModelError):
    """A model's configuration has an unknown key or a value outside its range."""

    exit_code = 2


class UnknownModelError(ModelError):
    """No model has that name."""

    exit_code = 2

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no model {name!r}; there is {', '.join(known)}")


class TrainingSetError(ModelError):
    """A training set's folder, manifest or columns are not in the format the models read."""


class EmptyTrainingSetError(TrainingSetError):
    """A split that is needed has no row or no label."""

    def __init__(self, split: str) -> None:
        super().__init__(
            f"the training set's {split} split has nothing to learn from: received 0 labels; "
            "widen the period, or see the manifest's `excluded` for what was left out and why"
        )


class OneClassError(TrainingSetError):
    """Every row of a split has the same label, so that nothing can be told apart."""

    def __init__(self, split: str, label: str, rows: int, value: object) -> None:
        super().__init__(
            f"the training set's {split} split has one class only: {label} is {value} in all of its {rows} rows; widen "
            "the period, or see whether the events that make the label are there"
        )


class UnknownLabelError(TrainingSetError):
    """A label is a title that the training set's own catalogue lacks."""

    def __init__(self, titles: Sequence[str]) -> None:
        shown = ", ".join(repr(title) for title in titles[:3]) + (", ..." if len(titles) > 3 else "")
        super().__init__(
            f"{len(titles)} label titles are not in the manifest's catalogue: {shown}; rebuild the training set, "
            "its catalogue must hold every title that is a label"
        )


class DivergedError(ModelError):
    """The training loss is no longer a number."""

    def __init__(self, epoch: int, loss: float, lr: float) -> None:
        super().__init__(
            f"training diverged in epoch {epoch}: the loss is {loss}; lower the learning rate (now {lr:g}) "
            "or look for broken rows in the training set"
        )


class CheckpointMismatchError(ModelError):
    """A checkpoint was written under another configuration or from another training set."""

    def __init__(self, differing: Sequence[str]) -> None:
        super().__init__(
            f"the checkpoint belongs to another training: {', '.join(differing)} differ; "
            "resume with the configuration and training set it was made with, or start under another run name"
        )


class ModelFolderError(ModelError):
    """A saved model's folder lacks a file, or is in a format this version does not read."""
