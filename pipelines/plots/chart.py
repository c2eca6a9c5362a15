"""A picture of a judgement's own, whatever it is of."""

from matplotlib.figure import Figure

from models.charts import Calibration, Lift, Regret, Timeline
from models.judged import AnyChart, Chart
from pipelines.plots.calibration import calibration
from pipelines.plots.lift import lift_curve
from pipelines.plots.regret import regret_over_time
from pipelines.plots.style import LINES, bare, blank
from pipelines.plots.timeline import anomaly_timeline


def chart(drawn: AnyChart, title: str) -> Figure:
    """The picture, under a line that says whose it is.

    Raises:
        PlotError: there is nothing to draw, or it is no numbers.
    """
    figure = _drawn(drawn)
    figure.suptitle(title, fontsize="medium")
    return figure


def _drawn(drawn: AnyChart) -> Figure:
    match drawn:
        case Calibration():
            return calibration(drawn.predicted, drawn.happened, drawn.what)
        case Lift():
            return lift_curve(drawn.scores, drawn.happened, drawn.what, drawn.baselines)
        case Regret():
            return regret_over_time(drawn.policies, drawn.unit, drawn.bands)
        case Timeline():
            return anomaly_timeline(
                drawn.times_ms,
                drawn.observed,
                drawn.expected,
                drawn.low,
                drawn.high,
                drawn.alerts,
                metric=drawn.metric,
                unit=drawn.unit,
                windows_ms=drawn.windows_ms,
                severity=drawn.severity,
            )
        case Chart():
            return lines(drawn)


def lines(drawn: Chart) -> Figure:
    """Named lines on two axes."""
    figure = blank(5)
    axes = figure.subplots()
    for place, (name, line) in enumerate(drawn.lines.items()):
        axes.plot(line.x, line.y, color=LINES[place % len(LINES)], label=name, marker=".", linewidth=1)
    axes.set_xlabel(drawn.x_label)
    axes.set_ylabel(drawn.y_label)
    axes.legend(frameon=False)
    bare(axes)
    return figure
