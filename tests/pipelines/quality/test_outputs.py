"""What people and Prometheus are shown: the page, the metrics, the command."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.quality.exposition import exposition
from pipelines.quality.output import OutputNotWritten, write_whole
from pipelines.quality.page import page
from pipelines.quality.results import Check, Findings, Result, Status, Window
from pipelines.quality.station import QualityRun, quality
from pipelines.settings import Settings
from tests.joined import session_ray
from tests.pipelines.quality.world import END, HOURS, WEEK, healthy
from tests.platform import SALT
from tests.well_formed import WellFormed

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
NASTY = 'a"b\\c\n<script>alert(1)</script>&'


@pytest.fixture(scope="module")
def run(ray_session, tmp_path_factory) -> QualityRun:
    """A run with one warning, and one failure."""
    world = healthy(tmp_path_factory.mktemp("world"))
    world.silver["silver.playback"][-1]["content_id"] = "<vod>"
    world.bronze[-3]["content_id"] = None
    return world.judge()


class Page(WellFormed):
    """The rows, drawings and outside references of a page; complains of a tag that is not closed."""

    def __init__(self, text: str) -> None:
        self.rows: list[tuple[str | None, str | None]] = []
        self.outside: list[str] = []
        super().__init__(text)

    def look(self, tag, attrs):
        given = dict(attrs)
        self.outside += [str(value) for name, value in attrs if name in {"src", "href", "action"}]
        if "data-check" in given:
            self.rows.append((given["data-check"], given["data-status"]))


def test_the_page_has_every_result_and_needs_nothing_else(run):
    text = page(run)
    parsed = Page(text)
    wanting = [one for one in run.findings.results if one.status is not Status.OK]
    expected = [(str(one.check), str(one.status)) for one in [*wanting, *run.findings.results]]
    assert parsed.rows == expected
    assert parsed.outside == []
    assert "script" not in parsed.tags
    assert "<vod>" not in text
    assert "&lt;vod&gt;" in text


def test_a_sparkline_has_a_bar_for_each_hour_and_last_weeks_steps(run):
    text = page(run)
    drawings = text[text.index('<table class="volumes">') :].split("<tr>")
    (drawn,) = [row for row in drawings if "client.playback" in row]
    drawing = ET.fromstring(drawn[drawn.index("<svg") : drawn.index("</svg>") + 6])
    bars = drawing.findall("rect")
    assert [float(bar.attrib["height"]) for bar in bars] == [36.0] * HOURS
    assert drawing.findall("path")[0].attrib["d"].count("H") == HOURS
    assert drawing.attrib["aria-label"] == "client.playback: 36 events in 3 hours, 36 a week earlier"


def test_the_page_of_an_empty_lakehouse_says_so(tmp_path):
    assert "no event has been ingested" in page(quality(Settings(work_dir=tmp_path)))


def test_metrics_are_what_was_found(run):
    families = {family.name: family for family in text_string_to_metric_families(exposition(run.findings))}
    assert set(families) == {
        "reel_quality_status",
        "reel_quality_observed",
        "reel_quality_threshold",
        "reel_quality_measured_timestamp_seconds",
    }
    for one in run.findings.results:
        labels = {"check": str(one.check), "subject": one.subject}
        status, observed = (
            [sample.value for sample in families[f"reel_quality_{name}"].samples if sample.labels == labels]
            for name in ("status", "observed")
        )
        assert status == [{"ok": 0, "warn": 1, "fail": 2}[one.status]]
        assert observed == [one.observed]
    assert len(families["reel_quality_status"].samples) == len(run.findings.results)
    (measured,) = families["reel_quality_measured_timestamp_seconds"].samples
    assert measured.value == run.findings.measured_ms / 1000


def test_any_text_is_a_label_and_a_threshold_may_be_absent():
    odd = Result(Check.REFERENCES, NASTY, Status.WARN, 0.5, None, "", Window(END - WEEK, END))
    families = {one.name: one for one in text_string_to_metric_families(exposition(Findings(1, [odd])))}
    (sample,) = families["reel_quality_observed"].samples
    assert sample.labels == {"check": "references", "subject": NASTY}
    assert families["reel_quality_threshold"].samples == []


def test_without_any_run_nothing_was_measured():
    samples = [one for family in text_string_to_metric_families(exposition(None)) for one in family.samples]
    assert [(one.name, one.value) for one in samples] == [("reel_quality_measured_timestamp_seconds", 0)]


def test_a_file_is_written_whole_and_everybody_may_read_it(tmp_path):
    target = tmp_path / "reel.prom"
    target.write_text("old")
    write_whole(target, "new\n")
    assert target.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(OutputNotWritten, match="cannot be written: No such file"):
        write_whole(tmp_path / "nowhere" / "reel.prom", "new\n")


def reel(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REEL_")}
    variables = {"REEL_WORK_DIR": str(folder), "REEL_SALT": SALT, "REEL_QUALITY_WINDOW_HOURS": str(HOURS)}
    variables |= {"REEL_QUALITY_MAX_SILENCE_MINUTES": "1000000000"}
    variables |= session_ray()
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "quality", *command],
        env=clean | variables, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_the_command_writes_all_three_and_warnings_fail_only_when_strict(tmp_path):
    world = healthy(tmp_path / "work")
    world.silver["silver.playback"][-1]["content_id"] = "vod-gone"
    world.write()
    html, metrics = tmp_path / "quality.html", tmp_path / "reel.prom"
    done = reel(tmp_path / "work", "--html", str(html), "--prometheus", str(metrics))
    assert done.returncode == 0, done.stderr
    assert "1 of 36 references to 1 unknown ids: vod-gone" in done.stdout
    assert "vod-gone" in html.read_text()
    assert 'reel_quality_status{check="references",subject="silver.playback.content_id"} 1.0' in metrics.read_text()

    strict = reel(tmp_path / "work", "--strict", "--json")
    assert strict.returncode == 1
    assert strict.stderr.startswith("reel: 0 checks failed and 1 warn")
    told = json.loads(strict.stdout)
    assert told["did"] == {"ok": len(told["results"]) - 1, "warn": 1, "fail": 0}


def test_metrics_may_go_to_standard_output(tmp_path):
    assert "nothing to judge yet" in reel(tmp_path).stdout
    done = reel(tmp_path, "--prometheus", "-")
    assert done.returncode == 0, done.stderr
    assert [family.name for family in text_string_to_metric_families(done.stdout)][-1] == (
        "reel_quality_measured_timestamp_seconds"
    )
