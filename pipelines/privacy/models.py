"""Which models learnt from people's rows: MLflow runs, by what they say of the training set they learnt from.

A run names the folder of its training set, its digest, and the snapshot of every table it was made from
(`tracking.training_set_tags`). It learnt from somebody whose row was in that set, or in one of those snapshots: what a
person did is then in counts and in what others are compared with, though no row of the set was theirs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.privacy.from_tables import Told
from pipelines.privacy.training_sets import SetTold
from pipelines.settings import Settings

_FOLDER, _DIGEST, _SNAPSHOT = "training_set.folder", "training_set.digest", "training_set.snapshot."
_RUNS_PER_PAGE = 500


@dataclass(frozen=True)
class Learnt:
    """A run that learnt from somebody, its registered versions, why that is known, and what to do."""

    run: str
    model: str
    versions: list[str]
    aliases: list[str]
    because: str
    what_to_do: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """What a run says of itself."""

    run: str
    model: str
    tags: Mapping[str, str]
    versions: Mapping[str, tuple[str, ...]]  # with the aliases of each

    @property
    def training_set(self) -> Path:
        """The folder that it learnt from."""
        return Path(self.tags[_FOLDER])

    @property
    def snapshots(self) -> dict[str, int]:
        """The tables that the training set was made from, each as of which snapshot."""
        return {
            name.removeprefix(_SNAPSHOT): int(value) for name, value in self.tags.items() if name.startswith(_SNAPSHOT)
        }


def trained(settings: Settings) -> list[Trained]:
    """Every run that says what it learnt from."""
    if settings.mlflow.tracking_uri is None and not (settings.work_dir / "mlflow.db").exists():
        return []  # asking would make the database
    from pipelines.tracking import Tracking  # MLflow takes seconds to import

    client = Tracking(settings.tracking_uri).client
    experiments = {one.experiment_id: one.name for one in client.search_experiments()}
    versions: dict[str, dict[str, tuple[str, ...]]] = {}
    for model in client.search_registered_models():
        aliases: dict[str, list[str]] = {}
        for alias, version in dict(model.aliases).items():
            aliases.setdefault(str(version), []).append(alias)
        for one in client.search_model_versions(f"name = '{model.name}'"):
            versions.setdefault(str(one.run_id), {})[str(one.version)] = tuple(
                sorted(aliases.get(str(one.version), ()))
            )
    found = []
    token: str | None = None
    while True:
        page = client.search_runs(list(experiments), max_results=_RUNS_PER_PAGE, page_token=token)
        for run in page:
            if _FOLDER in run.data.tags:
                name = run.data.tags.get("reel.model", experiments[run.info.experiment_id])
                found.append(Trained(run.info.run_id, name, dict(run.data.tags), versions.get(run.info.run_id, {})))
        token = page.token
        if not token:
            return found


def learnt_from(
    runs: Iterable[Trained], mark: str, told: Sequence[Told], in_sets: Sequence[SetTold], lakehouse: Lakehouse
) -> list[Learnt]:
    """The runs that learnt from the person of a request, by what tables and training sets tell of its erasure."""
    sets = {one.folder.name: one.rows[mark] for one in in_sets if mark in one.rows}
    digests = {digest: one.folder.name for one in in_sets if mark in one.rows for digest in one.digests}
    held: dict[str, frozenset[int]] = {}
    for one in told:
        if mark in one.by_mark:
            held[one.table] = held.get(one.table, frozenset()) | one.by_mark[mark].held
    found = []
    for run in runs:
        because = _because(run, sets, digests, held, lakehouse)
        if because is not None:
            aliases = sorted({alias for names in run.versions.values() for alias in names})
            versions = sorted(run.versions, key=int)
            found.append(Learnt(run.run, run.model, versions, aliases, because, _what_to_do(run, aliases)))
    return found


def _because(
    run: Trained,
    sets: Mapping[str, int],
    digests: Mapping[str, str],
    held: Mapping[str, frozenset[int]],
    lakehouse: Lakehouse,
) -> str | None:
    folder = digests.get(run.tags.get(_DIGEST, ""), run.training_set.name)
    if folder in sets:
        return f"{sets[folder]} rows of its training set {folder} were theirs"
    for name, snapshot_id in run.snapshots.items():
        if name in held and snapshot_id in held[name]:
            return f"its training set {folder} was made from {name}, which held rows of theirs"
        table = lakehouse.existing(name) if name in held else None
        if table is not None and table.snapshot_by_id(snapshot_id) is None:
            return (
                f"its training set {folder} was made from {name} as of a snapshot that has expired, so that it cannot "
                "be ruled out"
            )
    return None


def _what_to_do(run: Trained, aliases: Sequence[str]) -> str:
    again = "reel training-set" if run.model == "recommendation" else f"reel training-set build {run.training_set.name}"
    steps = f"train it anew without them: `{again}`, then `reel train {run.model}`"
    return f"{steps}, `reel evaluate {run.model}` and `reel publish {run.model}`" if aliases else steps
