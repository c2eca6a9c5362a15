"""What a training set says of itself: its manifest, read and checked."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import TrainingSetError

MANIFEST_FILE = "manifest.json"
SPLITS = ("train", "validation", "test")
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "purpose": str,
    "snapshots": dict,
    "seed": int,
    "code_version": str,
    "features": list,
    "rows": dict,
    "excluded": dict,
    "split_ms": dict,
    "schema_hash": str,
}
# What only some sets hold; a model that needs it says so.
_OWN: dict[str, type] = {"catalogue": list, "popularity": dict, "horizon_ms": int, "columns": dict}


@dataclass(frozen=True)
class Manifest:
    """The facts a training set was built from. Times are milliseconds since the epoch, UTC."""

    name: str
    purpose: str
    snapshots: dict[str, int | str]
    seed: int
    code_version: str
    features: list[str]
    rows: dict[str, int]
    excluded: dict[str, int]
    split_ms: dict[str, int]
    schema_hash: str
    digest: str
    """SHA-256 of the manifest's canonical JSON, 64 hex digits: what makes this training set this one."""
    catalogue: tuple[str, ...] = ()
    popularity: Mapping[str, int] = field(default_factory=dict)
    horizon_ms: int = 0
    """How long after a row's instant its label may lie; 0 where a row is cut at its label."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns that are features, and which `group.feature` each is."""

    @property
    def label_horizon_ms(self) -> int:
        """Nothing from here on was learnt or chosen by: the end of validation, and of what came of its last row."""
        return self.split_ms["validation_end"] + self.horizon_ms


def read_manifest(folder: Path, needs: Collection[str] = ()) -> Manifest:
    """The manifest of the training set in `folder`; `needs` of it what not every set holds: `catalogue`, `popularity`.

    Raises:
        TrainingSetError: there is none, it is not JSON, or it lacks what the models need.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise TrainingSetError(f"no training set at {folder}: {MANIFEST_FILE} is missing; build one first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TrainingSetError(f"{path} is not JSON ({error}); rebuild the training set") from None
    _check(path, content, needs)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    known = {name: content[name] for name in (*_NEEDED, *_OWN) if name in content}
    known["catalogue"] = tuple(content.get("catalogue", ()))
    return Manifest(**known, digest=hashlib.sha256(canonical.encode()).hexdigest())


def _check(path: Path, content: Any, needs: Collection[str]) -> None:
    if not isinstance(content, dict):
        raise TrainingSetError(f"{path} is no manifest: expected an object, received {type(content).__name__}")
    missing = sorted({*_NEEDED, *needs} - content.keys())
    if missing:
        raise TrainingSetError(
            f"{path} is of an unknown format: it lacks {', '.join(missing)}; rebuild the training set"
        )
    for name, kind in (_NEEDED | _OWN).items():
        if name in content and not isinstance(content[name], kind):
            raise TrainingSetError(f"{path}: `{name}` is {type(content[name]).__name__}, which no reader expects")
    for split in SPLITS:
        if split not in content["rows"]:
            raise TrainingSetError(f"{path}: `rows` does not count the {split} split")
    for bound in ("train_end", "validation_end"):
        if not isinstance(content["split_ms"].get(bound), int):
            raise TrainingSetError(f"{path}: `split_ms` lacks {bound} in milliseconds")
    if len(set(content.get("catalogue", ()))) != len(content.get("catalogue", ())):
        raise TrainingSetError(f"{path}: `catalogue` names a title twice")
