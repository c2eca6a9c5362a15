"""What `reel features` says of the groups is what they declare, and a page needs nothing from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.aggregates import Count, Mean, Ratio
from features.errors import SelectionError, UnknownGroupError
from features.filters import Is
from features.groups import GROUPS
from features.words import aggregate_words, duration_words, range_words
from pipelines import feature_catalogue as catalogue
from pipelines.cli import app
from pipelines.errors import UsageError

DAY, HOUR = 86_400_000, 3_600_000


def reel(folder: Path, *command: str) -> str:
    done = CliRunner().invoke(app, ["features", *command], env={"REEL_WORK_DIR": str(folder)}, standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


class Reader(HTMLParser):
    """Collects texts by the section they are in, and what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.rows: dict[str, str] = {}
        self.outside: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.outside += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag == "section":
            self._open.append(said["id"] or "")
            self.sections[self._open[-1]] = ""
        if tag == "tr" and "data-words" in said:
            self.rows[said["id"] or ""] = said["data-words"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in self._open:
            self.sections[name] += data + " "


def test_the_page_has_every_feature_and_needs_nothing_from_elsewhere(tmp_path):
    path = tmp_path / "features.html"
    assert f"{len(GROUPS)} groups" in reel(tmp_path, "page", str(path))
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.outside == []
    assert set(reader.sections) == {group.name for group in GROUPS}
    for group in GROUPS:
        text = reader.sections[group.name]
        for said in (group.description, group.owner, str(group.purpose), str(group.cadence), *group.entities):
            assert said in text
        assert duration_words(group.ttl_ms) in text
        assert duration_words(group.delay) in text
        for feature in group.features:
            words = reader.rows[f"{group.name}.{feature.name}"]
            for said in (feature.name, feature.unit, feature.description, range_words(feature.range)):
                assert said in text
                assert said.lower() in words


def test_the_list_and_one_group_and_one_feature(tmp_path):
    listed = reel(tmp_path, "list")
    shown = " ".join(reel(tmp_path, "show", "content_popularity").split())
    for group in GROUPS:
        assert group.name in listed
    assert "15 min" in shown
    assert "hourly_viewers" in shown
    assert "trending_velocity" in shown
    one = reel(tmp_path, "show", "content_popularity.trending_velocity")
    assert "trending_velocity" in one
    assert "hourly_viewers" not in one


def test_a_mistyped_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownGroupError, match="the nearest is content_popularity"):
        reel(tmp_path, "show", "content_popularty")
    with pytest.raises(SelectionError, match="the nearest is hourly_viewers"):
        reel(tmp_path, "show", "content_popularity.hourly_viewer")


def test_a_feast_repository_is_written_where_it_is_asked_for(tmp_path):
    said = reel(tmp_path, "feast", "--folder", str(tmp_path / "repository"))
    assert "feast apply" in said
    assert {file.name for file in (tmp_path / "repository").iterdir()} == {"feature_store.yaml", "definitions.py"}
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        reel(tmp_path, "feast", "--folder", str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--event-values", "best"), "choose one of exact, tiles"), (("--key", "content_id"), "give ENTITY=COLUMN")],
)
def test_a_wrong_option_of_the_join_is_refused_before_anything_starts(tmp_path, option, said):
    with pytest.raises(UsageError, match=said):
        reel(tmp_path, "join", "in", "out", "--feature", "x", "--purpose", "personalization", *option)


def test_words():
    assert [duration_words(ms) for ms in (30 * DAY, 36 * HOUR, 900_000, 1500, 2000)] == [
        "30 d", "36 h", "15 min", "1500 ms", "2 s",
    ]  # fmt: skip
    infinite = float("inf")
    assert [range_words(one) for one in ((0, 1), (0, infinite), (-infinite, infinite), (-infinite, 0), None)] == [
        "0 to 1", "0 and up", "any", "up to 0", "",
    ]  # fmt: skip
    assert aggregate_words(Ratio(Count(), Count(Is("event_name", ("a", "b"))))) == (
        "Ratio(numerator Count, denominator Count(where event_name is a or b))"
    )
    assert aggregate_words(Mean("is_complete")) == "Mean(column is_complete)"
    assert catalogue.feature_row(GROUPS[0], GROUPS[0].features[0])[1] == "map of text to real"
