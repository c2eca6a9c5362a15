"""The anomaly model as the road judges and publishes it: how well it says what comes, beside what needs no network."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.anomaly.baseline import DAY_MS, HOUR_MS
from models.anomaly.contexts import Contexts
from models.anomaly.forecaster import Forecaster
from models.anomaly.predictive import Predictive
from models.anomaly.training import INSTANT, SEGMENT, contexts_and_values
from models.intervals import bootstrap_means
from models.judged import Chart, Figure, Judged, Line, Slice
from models.task import instants_ms
from models.training_set import Manifest

Floats = npt.NDArray[np.float64]
_SLICE_RESAMPLES = 200
_THURSDAY = 3  # 1970-01-01 was one; Monday is 0
_SHOWN_HOURS = 14 * 24
_FIGURES = ("log_density", "seasonal_log_density", "last_value_log_density", "log_density_over_seasonal",
            "log_density_over_last_value", "share_in_band", "seasonal_share_in_band")  # fmt: skip


def evaluate(folder: Path, manifest: Manifest, rows: pa.Table, seed: int) -> Judged:
    """Log densities (nats per value) and the share of values in the 95 % band, of a saved model and its baselines.

    The seasonal baseline says what is usual at the hour of the week, the last value that nothing changes. All three go
    strictly forward through the test period, and only the network was trained. Segments are drawn for the intervals.

    Raises:
        EmptyTrainingSetError, TrainingSetError: the test rows cannot be judged.
        ModelFolderError: the saved model is broken.
    """
    forecaster = Forecaster.load(folder)
    contexts, values = contexts_and_values(forecaster, rows)
    given = forecaster.predicted(contexts)
    columns = _columns(given, contexts, values)
    segments = np.unique(np.array(rows[SEGMENT].to_pylist()), return_inverse=True)[1]
    at_ms = instants_ms(rows, INSTANT)
    weekday = (at_ms // DAY_MS + _THURSDAY) % 7
    masks = {"Monday to Friday": weekday < 5, "weekend": weekday >= 5}
    masks |= {"evening (18 to 24 UTC)": at_ms % DAY_MS >= 18 * HOUR_MS, "segment seen before": contexts.is_known}
    return Judged(
        _slice(columns, segments, seed),
        {name: _slice(columns[mask], segments[mask], seed, _SLICE_RESAMPLES) for name, mask in masks.items()
         if mask.any()},
        shown=("log_density", "seasonal_log_density"),
        headline=("log_density", "seasonal_log_density", "log_density_over_seasonal", "share_in_band"),
        unit="segments",
        charts={"timeline": _timeline(given, values, segments, at_ms)},
    )  # fmt: skip


def row_log_density(folder: Path, manifest: Manifest, rows: pa.Table) -> Floats:
    """[rows] nats that a saved model gives to what came."""
    forecaster = Forecaster.load(folder)
    contexts, values = contexts_and_values(forecaster, rows)
    return forecaster.predicted(contexts).log_density(values)


def seasonal_log_density(folder: Path, manifest: Manifest, rows: pa.Table) -> Floats:
    """[rows] nats that the seasonal baseline of the candidate's segments gives to what came."""
    contexts, values = contexts_and_values(Forecaster.load(folder), rows)
    return contexts.seasonal.log_density(values)


def _columns(given: Predictive, contexts: Contexts, values: Floats) -> Floats:
    """[rows, figures], in the order of `_FIGURES`."""
    model, seasonal, last = (one.log_density(values) for one in (given, contexts.seasonal, contexts.last_value))
    inside = [_in_band(one, values) for one in (given, contexts.seasonal)]
    return np.stack([model, seasonal, last, model - seasonal, model - last, *inside], axis=1)


def _in_band(given: Predictive, values: Floats) -> Floats:
    low, high = given.band()
    return ((low <= values) & (values <= high)).astype(np.float64)


def _slice(columns: Floats, segments: npt.NDArray[np.int64], seed: int, resamples: int = 2_000) -> Slice:
    intervals = bootstrap_means(columns, segments, seed, resamples)
    figures: dict[str, Figure] = dict(zip(_FIGURES, intervals, strict=True))
    return Slice(len(columns), len(np.unique(segments)), figures)


def _timeline(
    given: Predictive, values: Floats, segments: npt.NDArray[np.int64], at_ms: npt.NDArray[np.int64]
) -> Chart:
    """The busiest segment's last two weeks: what came, what was expected, the band."""
    busiest = int(np.argmax(np.bincount(segments, values)))
    rows = np.flatnonzero(segments == busiest)
    rows = rows[np.argsort(at_ms[rows], kind="stable")][-_SHOWN_HOURS:]
    hours = tuple(((at_ms[rows] - at_ms[rows[0]]) / HOUR_MS).tolist())
    low, high = given.band()
    lines = {"expected": given.location, "value": values, "band's low end": low, "band's high end": high}
    return Chart(
        "hours of the busiest segment's last two weeks",
        "the metric, in its own unit",
        {name: Line(hours, tuple(line[rows].tolist())) for name, line in lines.items()},
    )
