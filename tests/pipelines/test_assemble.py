"""The champions of three models become one servable; what has no champion is done without, and answers say so."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from features.groups.content_popularity import CONTENT_POPULARITY
from features.windows import HOUR_MS
from models.cascade.cascade import NO_CONTENT, NO_RANKER
from models.cascade.catalogue import VIEWERS
from models.cascade.pyfunc import _load_pyfunc
from models.errors import ConfigurationError
from models.recommendation.batches import Vocabulary
from models.recommendation.model import RecommenderConfig, SASRec
from models.recommendation.recommender import Recommender
from models.task import Place, load_task
from models.training_set import read_manifest
from pipelines.assemble import CASCADE, NothingToAssembleError, assemble, catalogue_of
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.publish import CHAMPION
from pipelines.settings import LakehouseSettings, Settings
from pipelines.signature import mlflow_signature
from pipelines.tracking import Tracking
from tests.models.content.planted import write_training_set as write_watches
from tests.models.ranker.planted import write_training_set as write_tiles

TITLES = [f"title{number:03d}" for number in range(30)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a saved model of each kind; they have barely learnt."""
    folder = tmp_path_factory.mktemp("saved")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SASRec(20, RecommenderConfig(dim=8, blocks=1, heads=1))
    Recommender(model, Vocabulary(TITLES[:20])).save(folder / "recommendation")
    for name, write in (("content", write_watches), ("ranker", write_tiles)):
        write(folder / f"{name}-set")
        task = load_task(name)
        rows = [pq.read_table(folder / f"{name}-set" / f"split={split}") for split in ("train", "validation")]
        training = task.start(task.configure({"epochs": 1}), read_manifest(folder / f"{name}-set"), *rows, Place())
        training.epoch()
        training.best().save(folder / name)
    return {name: folder / name for name in ("recommendation", "content", "ranker")}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A catalogue of thirty titles and a channel, of which one title was withdrawn, and two hours of popularity."""
    settings = Settings(work_dir=tmp_path / "work", lakehouse=LakehouseSettings(buckets=2))
    opened = Lakehouse.open(settings)
    titles = [
        {
            "event_id": f"e{place}",
            "event_timestamp": HOUR_MS,
            "content_id": name,
            "title": f"Title {place}",
            "content_type": "vod",
            "genres": ["crime" if place % 2 else "news"],
            "runtime_ms": 60_000,
            "is_available": True,
        }
        for place, name in enumerate(TITLES)
    ]
    titles.append({**titles[3], "event_id": "later", "event_timestamp": 2 * HOUR_MS, "is_available": False})
    titles.append({**titles[0], "event_id": "live", "content_id": "channel", "content_type": "live"})
    append(opened, tables.silver_titles(), titles)
    schema = CONTENT_POPULARITY.row_schema("content_id")
    popularity = [
        {"content_id": TITLES[7], "event_timestamp": at_ms, "daily_unique_viewers": viewers}
        for at_ms, viewers in ((50 * HOUR_MS, 40), (51 * HOUR_MS, 30), (1 * HOUR_MS, 99))
    ]
    append(opened, tables.TableSpec("features.content_popularity_by_content_id", schema), popularity)
    return settings


def append(lakehouse: Lakehouse, spec: tables.TableSpec, rows: list[dict[str, Any]]) -> None:
    """Rows of a table, in one commit."""
    table = lakehouse.table(spec)
    commit_files(table, write_files(TableFiles.of(table), pa.Table.from_pylist(rows, spec.schema)), {})


def publish(tracking: Tracking, name: str, folder: Path) -> str:
    """A version of the model with the alias `champion`."""
    task = load_task(name)
    run_id = tracking.open_run(name, f"run-{name}", {})
    version = tracking.register(name, run_id, folder, task.loader, mlflow_signature(task.signature), {})
    tracking.set_alias(version, CHAMPION)
    return str(version.version)


def test_without_a_champion_or_a_title_there_is_nothing_to_assemble(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NothingToAssembleError, match="none of recommendation, content, ranker has a champion"):
        assemble(settings)
    with pytest.raises(ConfigurationError, match="diversity"):
        assemble(settings, configuration={"diversity": 3})
    with pytest.raises(NothingToAssembleError, match="no title on demand"):
        assemble(Settings(work_dir=tmp_path / "empty"))


def test_champions_become_one_servable_and_what_is_missing_is_said(settings: Settings, saved: dict[str, Path]) -> None:
    tracking = Tracking(settings.tracking_uri)
    publish(tracking, "recommendation", saved["recommendation"])
    first = assemble(settings)
    assert first.read["titles on offer"] == 29  # neither what was withdrawn nor the channel
    assert first.did == {"without content": "answers say so", "without ranker": "answers say so"}
    assert asked(tracking)["reasons"] == [[NO_CONTENT, NO_RANKER]]
    assert assemble(settings).wrote == first.wrote  # nothing has changed

    publish(tracking, "ranker", saved["ranker"])
    publish(tracking, "content", saved["content"])
    second = assemble(settings, configuration={"diversity": 0.0})
    assert (first.wrote["version"], second.wrote["version"]) == ("1", "2")
    assert second.did == {}
    answers = asked(tracking)
    assert answers["reasons"] == [[]]
    assert len(answers["content_ids"][0]) == 10
    assert not {TITLES[1], TITLES[3], "channel"} & set(answers["content_ids"][0])
    champion = tracking.alias(CASCADE, CHAMPION)
    assert champion is not None
    assert champion.tags == {
        "part.retrieval": "recommendation 1", "part.content": "content 1", "part.ranker": "ranker 1",
    }  # fmt: skip


def test_the_catalogue_knows_what_was_watched_last(settings: Settings) -> None:
    offers = catalogue_of(Lakehouse.open(settings)).offers
    assert offers[TITLES[7]].numbers == {VIEWERS: 30.0, "content_runtime_ms": 60_000.0}
    assert offers[TITLES[8]].numbers == {"content_runtime_ms": 60_000.0}
    assert offers[TITLES[7]].title.genres == ("crime",)


def asked(tracking: Tracking) -> dict[str, list[Any]]:
    """What the champion answers to a viewer who has finished a title that it knows."""
    champion = tracking.alias(CASCADE, CHAMPION)
    assert champion is not None
    with tracking.fetched(champion) as folder:
        return _load_pyfunc(str(folder)).predict({"history": [[TITLES[1]]]})
