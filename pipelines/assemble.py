"""Assemble: the champions of three models become one servable.

Input     the champions of `recommendation`, `content` and `ranker`, as many as there are; the catalogue and what is
          watched now
Does      puts them together (`models.cascade`); what is missing is done without, and every answer says so
Output    a version of the registered model `cascade`, and its alias `champion`: its parts have each passed their gate
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from mlflow.entities.model_registry import ModelVersion
from pyiceberg.expressions import GreaterThanOrEqual, Reference
from pyiceberg.expressions.literals import literal

from features.groups.content_popularity import CONTENT_POPULARITY
from features.purposes import Purpose
from features.windows import DAY_MS
from models.cascade.cascade import Cascade, CascadeConfig
from models.cascade.catalogue import Catalogue
from models.cascade.folder import LOADERS, save
from models.cascade.signature import SIGNATURE
from pipelines.champions import CHAMPION
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import newest_event_ms, read_all, read_tasks, scan_tasks
from pipelines.report import StationReport, timed
from pipelines.settings import Settings
from pipelines.signature import mlflow_signature
from pipelines.tracking import Tracking
from pipelines.version import code_version

CASCADE, LOADER = "cascade", "models.cascade.pyfunc"
PARTS: Mapping[str, str] = {"retrieval": "recommendation", "content": "content", "ranker": "ranker"}
"""Part of the cascade to the registered model that it is a version of."""


class NothingToAssembleError(ReelError):
    """There is no title to recommend, or no model to recommend by."""


def assemble(settings: Settings, *, configuration: Mapping[str, Any] | None = None) -> StationReport:
    """Put the champions together and register what comes of it, or find that this was done already.

    Raises:
        NothingToAssembleError: no model has a champion, or the catalogue is empty.
        ConfigurationError: a setting is unknown or out of its range.
        ModelFolderError: a registered model is broken.
    """
    with timed("assemble") as report, lineage.run(settings, "assemble") as made:
        made.serves(Purpose.PERSONALIZATION)
        config = CascadeConfig.from_dict(configuration or {})
        catalogue = catalogue_of(Lakehouse.open(settings))
        if not len(catalogue):
            raise NothingToAssembleError(
                "the catalogue has no title on demand; run `reel ingest` and `reel clean` first"
            )
        tracking = Tracking(settings.tracking_uri)
        found = {part: tracking.alias(model, CHAMPION) for part, model in PARTS.items()}
        champions = {part: version for part, version in found.items() if version is not None}
        if not champions:
            raise NothingToAssembleError(
                f"none of {', '.join(PARTS.values())} has a champion; train, evaluate and publish one first"
            )
        report.read = {"titles on offer": len(catalogue)}
        report.read |= {part: f"{PARTS[part]} {version.version}" for part, version in champions.items()}
        report.did = {f"without {part}": "answers say so" for part in PARTS if part not in champions}
        version = _register(tracking, catalogue, config, champions)
        tracking.set_alias(version, CHAMPION)
        report.wrote = {"model": CASCADE, "version": str(version.version), "run": str(version.run_id)}
    return report


def catalogue_of(lakehouse: Lakehouse) -> Catalogue:
    """What is on offer by the catalogue's history, with the last day's popularity."""
    titles = read_all(lakehouse.existing("silver.titles"), tables.TITLE_HISTORY)
    columns = ["content_id", "event_timestamp", *(feature.name for feature in CONTENT_POPULARITY.features)]
    table = lakehouse.existing(f"features.{CONTENT_POPULARITY.name}_by_content_id")
    newest_ms = newest_event_ms(table)
    if table is None or newest_ms is None:
        return Catalogue.of(titles, pa.table({"content_id": pa.nulls(0, pa.string()), "event_timestamp": pa.nulls(0)}))
    recent = GreaterThanOrEqual(term=Reference("event_timestamp"), value=literal(_iso(newest_ms - DAY_MS)))
    return Catalogue.of(titles, read_tasks(TableFiles.of(table), scan_tasks(table, recent), columns, recent))


def _register(
    tracking: Tracking, catalogue: Catalogue, config: CascadeConfig, champions: Mapping[str, ModelVersion]
) -> ModelVersion:
    offers = [offer.as_dict() for offer in catalogue.offers.values()]
    parts = {part: f"{version.name} {version.version}" for part, version in champions.items()}
    decided_by = {"parts": parts, "config": config.as_dict(), "offers": offers}
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    run_id = tracking.open_run(
        CASCADE, f"{CASCADE}-{digest[:12]}", {"reel.model": CASCADE, "reel.code_version": code_version()}
    )
    tracking.log_params(run_id, {**config.as_dict(), **parts})
    with ExitStack() as stack:
        loaded: dict[str, Any] = {
            part: LOADERS[part](stack.enter_context(tracking.fetched(version))) for part, version in champions.items()
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / CASCADE
        save(Cascade(catalogue, config, **loaded), folder)
        tags = {f"part.{part}": name for part, name in parts.items()}
        version = tracking.register(CASCADE, run_id, folder, LOADER, mlflow_signature(SIGNATURE), tags)
    tracking.end_run(run_id, "FINISHED")
    return version


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
