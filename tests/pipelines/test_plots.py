"""What pictures show is what was counted; each says what it shows, in which unit."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.stats import binomtest

from models.charts import Calibration, Lift, Regret, Timeline
from models.intervals import Interval
from models.judged import AnyChart, Chart, Judged, Line, Slice
from pipelines.plots import chart, learning_curve, slice_bars
from pipelines.plots.calibration import reliability
from pipelines.plots.lift import lift_at
from pipelines.plots.style import PlotError

RANDOM = np.random.default_rng(5)
SCORES, HAPPENED = RANDOM.random(500), RANDOM.random(500) < 0.2
POINTS = np.arange(50)


def timeline(**changes: object) -> Timeline:
    facts: dict[str, object] = {
        "times_ms": 1_700_000_000_000 + POINTS * 300_000,
        "observed": np.sin(POINTS),
        "expected": np.zeros(50),
        "low": np.full(50, -0.5),
        "high": np.full(50, 0.5),
        "alerts": np.sin(POINTS) > 0.9,
        "metric": "stalls, CDN a",
        "unit": "stalls per hour watched",
        "windows_ms": ((1_700_000_300_000, 1_700_000_900_000),),
        "severity": np.abs(np.sin(POINTS)),
    }
    return Timeline(**{**facts, **changes})  # type: ignore[arg-type]


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    said = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        said += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
        said += [text.get_text() for text in axes.texts]
        legend = axes.get_legend()
        said += [text.get_text() for text in legend.get_texts()] if legend else []
    for legend in figure.legends:
        said += [text.get_text() for text in legend.get_texts()]
    return "\n".join(said)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (Calibration(SCORES, HAPPENED, "cancels"), ["cancels", "predicted (%)", "observed (% of rows)", "500 rows"]),
        (Lift(SCORES, HAPPENED, "cancels", {"rule": -SCORES}), ["lift (times", "% of rows", "rule", "chance"]),
        (Regret({"ours": SCORES, "theirs": 2 * SCORES}, "points"), ["cumulated regret (points)", "decisions", "ours:"]),
        (timeline(), ["stalls per hour watched", "time (UTC)", "alert (8)", "labelled as wrong (1)", "severity"]),
        (timeline(severity=None, windows_ms=()), ["stalls, CDN a", "expected band"]),
        (Chart("days", "hours", {"model": Line((1.0, 2.0), (3.0, 4.0))}), ["days", "hours", "model"]),
    ],
)
def test_every_picture_is_labelled_with_units_and_can_be_drawn(drawn: AnyChart, said: list[str]) -> None:
    figure = chart(drawn, "churn 3")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    written = texts(figure)
    assert not [one for one in ["churn 3", *said] if one not in written]


def test_slices_and_learning_are_labelled() -> None:
    def one(mean: float) -> Slice:
        figures = {"auc": Interval(mean, mean - 0.1, mean + 0.1), "rule_auc": Interval(0.5, 0.4, 0.6)}
        return Slice(1200, 30, figures)

    judged = Judged(one(0.7), {"market US": one(0.6)}, ("auc", "rule_auc"), ("auc",))
    figure = slice_bars(judged, "churn 3: who is served how well")
    assert "auc, with 95 % interval" in texts(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "all\n1,200 rows",
        "market US\n1,200 rows",
    ]
    curve = [
        {"train_loss": 1.0, "validation_auc": -0.2, "rule": 0.1},
        {"train_loss": 0.5, "validation_auc": 0.3, "rule": 0.1},
    ]
    said = texts(learning_curve(curve, "validation_auc", "rule", 2, "training loss (nats per row)"))
    assert not [one for one in ("nats per row", "best: epoch 2", "epoch", "validation auc") if one not in said]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.1, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=60))
def test_reliability_counts_every_row_once_and_keeps_equal_predictions_together(rows: list[tuple[float, bool]]) -> None:
    predicted, happened = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = reliability(predicted, happened, bins=4)
    assert found.rows.sum() == len(rows)
    assert len(found.rows) <= 4
    assert (found.rows @ found.predicted) == pytest.approx(predicted.sum())
    assert (found.rows @ found.happened) == pytest.approx(happened.sum())
    assert (np.diff(found.predicted) > 0).all()
    by_value = {value: happened[predicted == value] for value in np.unique(predicted)}
    ends = np.cumsum(found.rows)
    assert set(ends) <= set(np.cumsum([len(one) for one in by_value.values()]))


def test_reliability_has_wilsons_interval() -> None:
    found = reliability(np.repeat([0.1, 0.6], 50), np.r_[np.ones(8), np.zeros(42), np.ones(30), np.zeros(20)], bins=2)
    assert found.rows.tolist() == [50, 50]
    for place, count in enumerate((8, 30)):
        interval = binomtest(count, 50).proportion_ci(method="wilson")
        assert (found.low[place], found.high[place]) == pytest.approx((interval.low, interval.high), abs=1e-6)
    assert found.error == pytest.approx((abs(0.1 - 0.16) + abs(0.6 - 0.6)) / 2)


def test_lift_is_the_rate_among_the_first_over_the_rate_of_all() -> None:
    order = np.argsort(-SCORES)
    for share in (0.05, 0.2, 0.5, 1.0):
        first = HAPPENED[order[: round(share * 500)]]
        assert lift_at(SCORES, HAPPENED, share) == pytest.approx(first.mean() / HAPPENED.mean())


def test_rows_of_equal_score_count_with_their_mean_whatever_their_order() -> None:
    happened = np.array([1, 0, 0, 0])
    for rolled in range(4):
        assert lift_at(np.zeros(4), np.roll(happened, rolled), 0.25) == pytest.approx(1)


def test_charts_are_equal_if_their_arrays_are() -> None:
    assert timeline() == timeline()
    assert timeline() != timeline(unit="per minute")
    assert timeline() != timeline(low=np.full(50, -0.6))
    assert timeline() != timeline(severity=None)
    assert Regret({"a": SCORES}, "x") == Regret({"a": SCORES.copy()}, "x")
    assert Regret({"a": SCORES}, "x") != Regret({"b": SCORES}, "x")
    assert Lift(SCORES, HAPPENED, "x") != Calibration(SCORES, HAPPENED, "x")


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (Calibration(SCORES[:0], HAPPENED[:0], "x"), "at least one: received predicted 0, happened 0"),
        (Calibration(SCORES, HAPPENED[:7], "x"), "predicted 500, happened 7"),
        (Calibration(SCORES * 2, HAPPENED, "x"), "needs probabilities: received"),
        (Calibration(SCORES, SCORES, "x"), "outcomes that are 0 or 1"),
        (Lift(SCORES, np.zeros(500), "x"), "500 rows and none"),
        (Lift(np.full(500, np.nan), HAPPENED, "x"), "numbers in scores"),
        (Regret({}, "x"), "at least one policy"),
        (Regret({"a": SCORES, "b": SCORES[:3]}, "x"), "a 500, b 3"),
        (timeline(alerts=np.zeros(3, bool)), "times 50, alerts 3"),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_line(drawn: AnyChart, said: str) -> None:
    with pytest.raises(PlotError, match=said):
        chart(drawn, "x")
