"""Alerts on a metric: what was observed, what was expected, where it left the band, and when something was wrong."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from pipelines.plots.style import ALARM, OURS, SHADE, THEIRS, Numbers, bare, blank, require_alike


def anomaly_timeline(
    times_ms: npt.NDArray[np.int64],
    observed: Numbers,
    expected: Numbers,
    low: Numbers,
    high: Numbers,
    alerts: npt.NDArray[np.bool_],
    *,
    metric: str,
    unit: str,
    windows_ms: Sequence[tuple[int, int]] = (),
    severity: Numbers | None = None,
) -> Figure:
    """The metric in its expected band, alerts marked on it, labelled windows shaded; severity below, if given.

    Args:
        times_ms: [points] milliseconds since the epoch, UTC, ascending.
        observed: [points].
        expected: [points] what the model held likeliest, before it saw the point.
        low: [points] lower end of the band.
        high: [points] upper end.
        alerts: [points] whether it raised an alarm.
        metric: whose it is, such as "stalls, CDN a x region west".
        unit: such as "per hour watched".
        windows_ms: (start, end) of what people have labelled as wrong.
        severity: [points] 0 to 1.

    Raises:
        PlotError: no point, or columns of different lengths.
    """
    require_alike("anomaly timeline", times=times_ms, observed=observed, expected=expected, low=low, high=high)
    require_alike("anomaly timeline", times=times_ms, alerts=alerts)
    times = times_ms.astype("datetime64[ms]")
    figure = blank(4.5 if severity is None else 6)
    heights = (1,) if severity is None else (3, 1)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    axes = panels[0]
    for place, (start, end) in enumerate(windows_ms):
        label = f"labelled as wrong ({len(windows_ms)})" if place == 0 else None
        for panel in panels:
            panel.axvspan(_instant(start), _instant(end), color=SHADE, linewidth=0, label=label)
    axes.fill_between(times, low, high, color=THEIRS, alpha=0.3, linewidth=0, label="expected band")
    axes.plot(times, observed, color=OURS, linewidth=0.9, label="observed")
    axes.plot(times, expected, color="black", linewidth=0.7, label="expected")
    count = int(alerts.sum())
    axes.plot(times[alerts], observed[alerts], "v", color=ALARM, markersize=6, label=f"alert ({count})")
    axes.set_ylabel(unit)
    axes.set_title(metric, loc="left")
    figure.legend(frameon=False, ncols=3, loc="outside lower center", handles=axes.get_legend_handles_labels()[0])
    if severity is not None:
        require_alike("anomaly timeline", times=times_ms, severity=severity)
        panels[1].vlines(times, 0, severity, color=np.where(alerts, ALARM, THEIRS).tolist(), linewidth=0.8)
        panels[1].set_ylim(0, 1)
        panels[1].set_ylabel("severity (0 to 1)")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    panels[-1].set_xlabel("time (UTC)")
    bare(*panels)
    return figure


def _instant(at_ms: int) -> np.datetime64:
    return np.datetime64(at_ms, "ms")
