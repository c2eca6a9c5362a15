"""Building a training set again from its manifest.

    rebuilt = rebuild(settings, Path("…/manifest.json"))
    rebuilt.is_same         the same bytes
    rebuilt.difference      else what became of how many rows: {"withdrawn_since": 40, "rows.train": -36, …}

The tables are read as of the snapshots that the manifest names; who allows what, and who is a child, is asked as of
today. So it has the same bytes unless somebody withdrew or was found to be a child since; else it says how many rows
went for which reason. If a snapshot has expired it says so and stops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.training.declaration import TrainingSet
from features.training.splits import Bounds
from features.training.written import from_json
from pipelines.cluster import connected
from pipelines.errors import ReelError
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.settings import Settings
from pipelines.training_sets.building import (
    Outcome,
    Recipe,
    RowsChangedError,
    facts_of,
    fingerprints_of,
    manifest_of,
    now_ms,
    recipe_of,
    run,
    staged_beside,
)
from pipelines.training_sets.built import BuiltTrainingSet, digest_of_manifest, folder_of, publish, read_manifest
from pipelines.training_sets.inputs import PRIVACY, DataSpan, Inputs
from pipelines.version import code_version


class DeclaredOtherwiseError(ReelError):
    """Features mean something else by now than when the training set was built."""


@dataclass(frozen=True)
class Rebuilt:
    """A set that was built again. `difference`: now less then, of every count that moved; {} for the same bytes."""

    built: BuiltTrainingSet
    is_same: bool
    difference: dict[str, int]
    made_otherwise: dict[str, str]
    """What made it, where that is not what made the first: `code_version`, `written_by`."""

    @property
    def words(self) -> str:
        """What came of it, in one line."""
        if self.is_same:
            return f"the same bytes: {self.built.folder}"
        moved = ", ".join(f"{name} {count:+,}" for name, count in self.difference.items()) or "no count, only bytes"
        otherwise = "".join(f"; {name} was {then}" for name, then in self.made_otherwise.items())
        return f"not the same: {moved}{otherwise}: {self.built.folder}"


def rebuild(settings: Settings, manifest_path: Path) -> Rebuilt:
    """Build a training set again; Ray is joined or started if it is not there.

    Raises:
        ManifestError: the file is no manifest.
        SnapshotGoneError: a snapshot has expired.
        DeclaredOtherwiseError: a feature is declared otherwise by now.
        RowsChangedError: files of rows are other ones.
        FeatureError: the manifest speaks of what this version of Reel does not know.
    """
    manifest = read_manifest(manifest_path)
    declared = from_json(manifest["declaration"])
    _require_same_features(declared, manifest)
    with connected(settings), lineage.run(settings, "training-set") as made:
        made.serves(declared.purpose)
        lakehouse = Lakehouse.open(settings)
        privacy = _privacy(lakehouse)
        inputs = Inputs.recorded_as(settings, lakehouse, made, declared.purpose, manifest["snapshots"], now_ms())
        data = DataSpan(manifest["data_ms"]["since"], manifest["data_ms"]["until"])
        recipe = recipe_of(declared, inputs, data)
        _require_same_rows(recipe, manifest)
        made.inputs.append(lineage.Inputs(tables=recipe.snapshots))
        split = manifest["split_ms"]
        bounds = Bounds(split["validation_begin"], split["test_begin"], split["gap"])
        staged = staged_beside(settings.work_dir / "training_sets" / f"{declared.name}.again")
        outcome = run(recipe, staged, bounds)
        made.require_no_erasure_since(declared.name)
        rebuilt = _kept(settings, staged, recipe, outcome, manifest, privacy)
        made.wrote_folder(rebuilt.built.folder, rebuilt.built.schema, sum(rebuilt.built.rows.values()))
        made.report = rebuilt.built.report()
    return rebuilt


def _kept(
    settings: Settings,
    staged: Path,
    recipe: Recipe,
    outcome: Outcome,
    manifest: Mapping[str, Any],
    privacy: Mapping[str, int],
) -> Rebuilt:
    """Put what was built where it belongs: in the place of the first if it is the same, else beside it."""
    again = manifest_of(recipe, facts_of(recipe), outcome)
    otherwise = {name: str(manifest.get(name)) for name in ("code_version", "written_by")
                 if manifest.get(name) != again[name]}  # fmt: skip
    if outcome.files == manifest["files"]:
        folder = folder_of(settings, manifest["name"], _facts_in(manifest, recipe))
        publish(staged, folder, manifest)
        return Rebuilt(BuiltTrainingSet.read(folder), True, {}, otherwise)
    difference = _difference(manifest, again)
    facts = facts_of(recipe) | {"snapshots": {**recipe.snapshots, **privacy}}
    again |= {"snapshots": facts["snapshots"], "difference": difference, "rebuilt_from": digest_of_manifest(manifest)}
    folder = folder_of(settings, manifest["name"], facts)
    publish(staged, folder, again)
    return Rebuilt(BuiltTrainingSet.read(folder), False, difference, otherwise)


def _facts_in(manifest: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    return {name: manifest[name] for name in facts_of(recipe)}


def _difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, int]:
    """Every count that moved, now less then: reasons by their name, splits as `rows.train`."""

    def counts(of: Mapping[str, Any]) -> dict[str, int]:
        rows = {f"rows.{split}": count for split, count in of["rows"].items()}
        return {**of["excluded"], **{f"counts.{name}": count for name, count in of["counts"].items()}, **rows}

    before, after = counts(then), counts(now)
    moved = {name: after.get(name, 0) - before.get(name, 0) for name in dict.fromkeys([*after, *before])}
    return {name: count for name, count in moved.items() if count}


def _privacy(lakehouse: Lakehouse) -> dict[str, int]:
    found = {name: lakehouse.existing(name) for name in PRIVACY}
    ids = {name: table.metadata.current_snapshot_id for name, table in found.items() if table is not None}
    return {name: snapshot for name, snapshot in ids.items() if snapshot is not None}


def _require_same_features(declared: TrainingSet, manifest: Mapping[str, Any]) -> None:
    now = fingerprints_of(declared)
    then: Mapping[str, str] = manifest.get("feature_fingerprints", {})
    moved = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    if moved:
        raise DeclaredOtherwiseError(
            f"{', '.join(moved)} is declared otherwise than when {declared.name} was built; use the code of then, "
            f"{manifest.get('code_version')} (this is {code_version()})"
        )


def _require_same_rows(recipe: Recipe, manifest: Mapping[str, Any]) -> None:
    then: Mapping[str, str] = manifest.get("files_read", {})
    changed = [path for path in {**recipe.files_read, **then} if recipe.files_read.get(path) != then.get(path)]
    if changed:
        raise RowsChangedError(
            f"{changed[0]} is not the file that {recipe.declared.name} was made from; bring that back, or build anew"
        )
