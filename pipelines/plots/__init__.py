"""Pictures for people who compare runs: pure functions of plain arrays to a matplotlib figure.

learning.py what training came to by epoch · slices.py who is served how well · calibration.py are probabilities kept
lift.py how much a short list holds · regret.py what choosing cost, as it went on · timeline.py alerts on a metric
"""

from pipelines.plots.calibration import calibration
from pipelines.plots.chart import chart
from pipelines.plots.learning import learning_curve
from pipelines.plots.lift import lift_curve
from pipelines.plots.regret import regret_over_time
from pipelines.plots.slices import slice_bars
from pipelines.plots.timeline import anomaly_timeline

__all__ = [
    "anomaly_timeline",
    "calibration",
    "chart",
    "learning_curve",
    "lift_curve",
    "regret_over_time",
    "slice_bars",
]
