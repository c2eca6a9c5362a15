"""A model card says what was logged, names its limits, and is what MLflow shows of a version."""

from pathlib import Path

import pytest

from pipelines.champions import CHAMPION
from pipelines.compare import UnknownRunError
from pipelines.document import Document, Section, Table
from pipelines.model_card import CARD_FILE, PAGE_FILE, card_of, write_card
from tests.pipelines.registry import MODEL, Registered

INTERVALS = {
    "test_ndcg": (0.4, 0.35, 0.45),
    "test_popular_ndcg": (0.2, 0.15, 0.25),
    "test_slice_market_US_ndcg": (0.3, 0.24, 0.36),
    "test_slice_market_US_popular_ndcg": (0.2, 0.15, 0.25),
    "test_slice_market_GB_ndcg": (0.5, 0.45, 0.55),
    "test_slice_market_GB_popular_ndcg": (0.2, 0.15, 0.25),
    "test_slice_tier_free_ndcg": (0.5, 0.1, 0.9),
    "test_slice_tier_free_popular_ndcg": (0.2, 0.1, 0.3),
}
UNITS = {"test": 90, "test_slice_market_US": 40, "test_slice_market_GB": 45, "test_slice_tier_free": 5}


def evaluated(registered: Registered, **tags: str) -> None:
    metrics = {f"{name}_rows": 2.0 * count for name, count in UNITS.items()}
    metrics |= {f"{name}_units": float(count) for name, count in UNITS.items()}
    for name, (mean, low, high) in INTERVALS.items():
        metrics |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    headline = '["test_ndcg", "test_ndcg_low", "test_ndcg_high", "test_popular_ndcg"]'
    run_id = registered.run({"dim": 32}, metrics)
    registered.version(run_id, **{"evaluated": MODEL, "evaluated.headline": headline, **tags})


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    return Registered(tmp_path)


def test_says_what_was_logged(registered: Registered) -> None:
    evaluated(registered, **{"gate.decision": "published", "gate.reason": "better by more than noise"})
    registered.tracking.set_alias(registered.tracking.version(MODEL, "1"), CHAMPION)
    card = card_of(registered.tracking, "recommendation@champion").to_markdown()
    for said in (
        "# recommendation 1",
        "people who allow personalization",
        "It bears the alias champion.",
        "The gate: published, better by more than noise.",
        "1,000 train rows, 100 validation rows, 90 test rows",
        "silver.playback at 7",
        "- 3 rows left out: no consent",
        "On 180 rows of its test period, 90 viewers",
        "| ndcg | 0.4000 (0.3500 to 0.4500) |",
        "| market US | 80 | 0.3000 (0.2400 to 0.3600) | 0.2000 (0.1500 to 0.2500) |",
        "- For market US it is not better than the baseline by more than noise.",
        "- Of tier free there were too few (5) to say how it does.",
        "It knows nothing of what came after 2023-11-14 22:13 UTC.",
        "- configuration: dim 32",
    ):
        assert said in card
    assert "For market GB" not in card


def test_what_nobody_has_measured_is_a_limit(registered: Registered) -> None:
    registered.version()
    card = card_of(registered.tracking, "recommendation/1").to_markdown()
    assert "It was not judged yet" in card
    assert "How good it is nobody has measured." in card
    assert "It was never put to the gate." in card
    with pytest.raises(UnknownRunError, match="no version 'recommendation/2'"):
        card_of(registered.tracking, "recommendation/2")


def test_is_shown_with_the_version_as_far_as_it_fits(registered: Registered) -> None:
    evaluated(registered)
    write_card(registered.tracking, MODEL, "1")
    version = registered.tracking.version(MODEL, "1")
    client = registered.tracking.client
    written = Path(client.download_artifacts(str(version.run_id), CARD_FILE)).read_text()
    assert version.description == written
    page = Path(client.download_artifacts(str(version.run_id), PAGE_FILE)).read_text()
    assert "<h2>Limits</h2>" in page

    registered.tracking.tag_version(version, {"gate.reason": "a long reason. " * 500, "gate.decision": "refused"})
    write_card(registered.tracking, MODEL, "1")
    description = registered.tracking.version(MODEL, "1").description
    assert len(description) <= 5000
    assert description.endswith("The whole card is the artifact model_card.md of the version's run.\n")


def test_nothing_of_a_document_becomes_markup() -> None:
    table = Table(("a|b", "c"), [("<td>", "1 | 2")])
    document = Document("A & B", [Section("S", ["<script>"], ["x < y"], table)])
    html = document.to_html()
    assert "<script>" not in html
    assert "<li>x &lt; y</li>" in html
    assert "<td>&lt;td&gt;</td>" in html
    assert "| <td> | 1 \\| 2 |" in document.to_markdown()
