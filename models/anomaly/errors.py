"""Named failures of the anomaly models."""

from models.errors import ModelError


class NotFiniteError(ModelError):
    """A metric's value is infinite or not a number."""

    def __init__(self, value: float) -> None:
        super().__init__(
            f"a metric's value must be finite: received {value}; leave a value that is not known out, a gap is allowed"
        )
