"""What people are shown: the page, its drawings, the command."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from features.groups import GROUPS, group
from features.statistics import describe, summarize
from pipelines.feature_statistics.page import page
from pipelines.feature_statistics.reference import Reference
from pipelines.feature_statistics.report import FeatureReport, History
from pipelines.feature_statistics.words import number_words, share_words
from tests.joined import session_ray
from tests.pipelines.feature_statistics.world import FIRST_DAY, World, a_log, boundary_rows
from tests.platform import SALT
from tests.well_formed import WellFormed

DAYS = range(FIRST_DAY, FIRST_DAY + 10)
NASTY = '<script>alert("1")</script>&'


def values_of(feature, rng, size: int = 60) -> pa.Array:
    kind = feature.arrow_type

    def one():
        if pa.types.is_map(kind):
            return [(NASTY, 0.75), ("news", 0.25)]
        if pa.types.is_list(kind):
            return [NASTY, "vod-1"] if pa.types.is_string(kind.value_type) else [float(n) for n in rng.random(7)]
        if pa.types.is_string(kind):
            return str(rng.choice([NASTY, "tv", "phone"]))
        return int(rng.integers(0, 5)) if pa.types.is_integer(kind) else float(rng.random())

    return pa.array([None if rng.random() < 0.1 else one() for _ in range(size)], kind)


def described(feature, values) -> object:
    return describe(summarize(values, len(values), feature.range), feature.arrow_type)


@pytest.fixture(scope="module")
def report() -> FeatureReport:
    """Every feature over ten days, of which the sixth is not known; the last day of the second is out of range."""
    rng = np.random.default_rng(1)
    histories = []
    for one in GROUPS:
        for entity in one.entities:
            for feature in one.features:
                days = {day: described(feature, values_of(feature, rng)) for day in DAYS if day != DAYS.start + 5}
                histories.append(History(one, entity, feature, days, dict.fromkeys(days, days[DAYS.start])))
    broken = described(histories[1].feature, pa.array([-1.0, -2.0, 5.0]))
    histories[1].days[DAYS.stop - 1] = broken
    return FeatureReport(histories, Reference(f"day {NASTY}"), DAYS)


class Page(WellFormed):
    """The cards, drawings and references of a page; complains of a tag that is not closed."""

    def __init__(self, text: str) -> None:
        self.cards: list[tuple[str, str]] = []
        self.rows: list[str] = []
        self.ids: list[str] = []
        self.inside: list[str] = []
        self.outside: list[str] = []
        super().__init__(text)

    def look(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        for value in (str(value) for name, value in attrs if name in {"src", "href", "action", "xlink:href"}):
            (self.inside if value.startswith("#") else self.outside).append(value.removeprefix("#"))
        if tag == "article":
            self.cards.append((given["data-feature"], given["data-verdict"]))
        if tag == "tr" and "data-feature" in given:
            self.rows.append(given["data-feature"])


def test_the_page_has_every_feature_and_needs_nothing_else(report):
    text = page(report)
    parsed = Page(text)
    assert parsed.cards == [(one.name, str(one.drift.verdict)) for one in report.histories]
    assert parsed.rows == [one.name for one in report.wanting]
    assert parsed.outside == []
    assert set(parsed.inside) <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "script" not in parsed.tags
    assert "url(" not in text
    assert "@import" not in text
    assert NASTY not in text
    assert "&lt;script&gt;" in text
    for one in report.histories:
        assert one.feature.description.split(";")[0].replace("'", "&#x27;") in text


def drawings_of(text: str, name: str) -> list[ET.Element]:
    start = text.index(f'<article id="{name}"')
    card = text[start : text.index("</article>", start)]
    return [
        ET.fromstring(part[: part.index("</svg>") + 6]) for part in ("<svg" + one for one in card.split("<svg")[1:])
    ]


def test_the_median_is_drawn_day_by_day_and_a_day_that_is_not_known_is_left_out(report):
    one = report.histories[1]
    plot, nulls, psi, *_ = drawings_of(page(report), one.name)
    medians = [path.attrib["d"] for path in plot.findall("path") if path.attrib["class"] == "median"]
    points = [[tuple(map(float, point.split())) for point in line[1:].split("L")] for line in medians]
    assert [len(line) for line in points] == [5, 4]
    assert [x for line in points for x, _ in line] == [16.0 + 32 * n for n in range(10) if n != 5]
    told = [one.days[day].quantile(0.5) for day in sorted(one.days)]
    heights = [y for line in points for _, y in line]
    lowest, highest = int(np.argmin(told)), int(np.argmax(told))
    assert heights[highest] < heights[lowest], "up is more"
    on_scale = np.interp(told, [told[lowest], told[highest]], [heights[lowest], heights[highest]])
    assert heights == pytest.approx(on_scale, abs=0.11)
    assert plot.attrib["aria-label"].startswith(f"{one.name}: median ")
    assert len(psi.findall("rect")) == len(one.drifts)
    assert {rect.attrib["class"] for rect in psi.findall("rect")} == {str(d.verdict) for d in one.drifts.values()}
    assert len(nulls.findall("rect")) == sum(day.nulls > 0 for day in one.days.values())


def test_shares_of_texts_are_stacked_to_the_whole(report):
    one = next(one for one in report.histories if one.feature.name == "device_type")
    plot, *_ = drawings_of(page(report), one.name)
    bars = plot.findall("rect")
    for day in one.days:
        x = f"{(day - DAYS.start) * 32 + 0.5:.1f}"
        heights = [float(bar.attrib["height"]) for bar in bars if bar.attrib["x"] == x]
        assert len(heights) == one.days[day].distinct
        assert sum(heights) == pytest.approx(84.0, abs=0.2)


def test_what_is_out_of_range_is_told(report):
    one = report.histories[1]
    assert one.last.outside == 2
    assert "2 out of range" in one.complaints
    text = page(report)
    start = text.index(f'<article id="{one.name}"')
    assert '<dt>out of range</dt><dd><b class="drift">2</b></dd>' in text[start : text.index("</article>", start)]


@pytest.mark.parametrize("values", [[None, None], [2.0], [0.0, 0.0], []], ids=["null", "one", "constant", "nothing"])
def test_days_without_much_to_draw_are_drawn(values):
    feature = group("content_engagement").features[0]
    day = described(feature, pa.array(values, pa.float64()))
    history = History(group("content_engagement"), "content_id", feature, {DAYS.start + 1: day}, {})
    text = page(FeatureReport([history], Reference("nothing"), DAYS))
    assert Page(text).cards == [(history.name, "none")]
    assert "nan" not in text.lower().replace("nanum", "")
    assert ("null throughout" in text) == (values == [None, None])
    for drawing in drawings_of(text, history.name):
        assert drawing.attrib["aria-label"]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "ms", "–"), (0.0, "", "0"), (0.1254, "", "0.125"), (1234.4, "", "1,234"), (12_345.0, "", "12.3k"),
        (-2.5e6, "", "-2.5M"), (0.000012, "", "1.2e-05"), (999.0, "ms", "999 ms"), (90_000.0, "ms", "1.5 min"),
        (86_400_000.0 * 3, "ms", "3 d"), (0.4567, "share", "45.7 %"),
        (0.00001, "share", "<0.01 %"), (1.0, "share", "100 %"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, unit, words):
    assert number_words(value, unit) == words


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 9, "0 %"), (0, 0, "0 %"), (9, 9, "100 %"), (1, 9000, "<0.1 %"), (1, 30, "3.3 %"), (1, 3, "33 %")],
)
def test_what_is_not_nothing_is_not_shown_as_nothing(part, whole, words):
    assert share_words(part, whole) == words


@pytest.mark.timeout(300)
def test_the_command_describes_writes_the_page_and_tells_machines(ray_session, tmp_path):
    world, one = World(tmp_path / "work"), group("content_engagement")
    rng = np.random.default_rng(5)
    days = [
        boundary_rows(one, day, {"skip_intro_rate": rng.beta(2 + 9 * (day == 20_470), 3, 800)})
        for day in range(20_461, 20_471)
    ]
    world.store(one, "content_id", pa.concat_tables(days))
    world.store_log(group("session_context"), "session_id", a_log(group("session_context")))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REEL_")}
    variables = {"REEL_WORK_DIR": str(tmp_path / "work"), "REEL_SALT": SALT}
    variables |= session_ray()

    def reel(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "features", "report", *options],
            env=clean | variables, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    html = tmp_path / "features.html"
    done = reel("--html", str(html), "--days", "5")
    assert done.returncode == 0, done.stderr
    assert "drift of its numbers" in done.stdout
    assert "content_engagement_by_content_id.skip_intro_rate" in {name for name, _ in Page(html.read_text()).cards}
    told = json.loads(reel("--json", "--days", "5", "--against", "2026-01-10").stdout)
    assert told["did"] == {"already described": "from these snapshots and declarations"}
    assert told["against"] == "2026-01-10"
    skipped = next(row for row in told["features"] if row["feature"].endswith("skip_intro_rate"))
    assert (skipped["day"], skipped["verdict"], skipped["count"]) == ("2026-01-17", "drift", 800)
    wrong = reel("--against", str(tmp_path / "nowhere"))
    assert wrong.returncode == 2
    assert "no date like 2026-01-31" in wrong.stderr
