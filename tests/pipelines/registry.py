"""An MLflow of one test's own, and versions in it that nobody trained: what is logged of them is all that counts."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from models.training_set import Manifest
from pipelines.tracking import Tracking

MODEL = "recommendation"
HORIZON_MS = 1_700_000_000_000


class Registered:
    """Runs and versions of the recommender, as training, evaluation and publication leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, empty_mlflow(folder)
        self.tracking = Tracking(self.uri)

    def run(
        self,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        manifest: Mapping[str, object] | None = None,
        code: str = "0.1.0-abc",
    ) -> str:
        """The id of a run that has logged these."""
        name = f"run{len(list(self.folder.glob('set*')))}"
        run_id = self.tracking.open_run(MODEL, name, {"reel.model": MODEL, "reel.code_version": code})
        self.tracking.log_params(run_id, params)
        self.tracking.log_metrics(run_id, metrics)
        self.tracking.log_tags(run_id, {"environment.torch": "2.9", "workers": 1})
        folder = self.folder / f"set-{name}"
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        self.tracking.log_training_set(run_id, training_set(**(manifest or {})), folder)
        return run_id

    def version(self, run_id: str | None = None, **tags: str) -> ModelVersion:
        """A version of the model, of a run of its own."""
        run_id = run_id or self.run({"dim": 32}, {"test_rows": 10.0})
        if not self.tracking.client.search_registered_models(f"name = '{MODEL}'"):
            self.tracking.client.create_registered_model(MODEL)
        return self.tracking.client.create_model_version(
            MODEL, str(self.folder), run_id=run_id, tags={"label_horizon_ms": str(HORIZON_MS), **tags}
        )

    def find(self, version: ModelVersion) -> ModelVersion:
        """The version as it is now."""
        return self.tracking.version(MODEL, str(version.version))

    @property
    def aliases(self) -> dict[str, str]:
        aliases = self.tracking.client.get_registered_model(MODEL).aliases
        return {name: str(version) for name, version in aliases.items()}


def empty_mlflow(folder: Path) -> str:
    """The address of an MLflow in `folder` that nothing is in yet."""
    shutil.copy(_empty_store(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@cache
def _empty_store() -> Path:
    """A store that was made once, to be copied: making one takes seconds."""
    path = Path(tempfile.mkdtemp(prefix="reel-mlflow-")) / "mlflow.db"
    atexit.register(shutil.rmtree, path.parent)
    Tracking(f"sqlite:///{path}").client.search_experiments()
    return path


def training_set(**changes: object) -> Manifest:
    """A manifest with `changes`."""
    facts: dict[str, object] = {
        "name": "recommendation",
        "purpose": "personalization",
        "snapshots": {"silver.playback": 7},
        "seed": 1,
        "code_version": "0.1.0-abc",
        "features": ["user_viewing_history:recent_titles"],
        "rows": {"train": 1000, "validation": 100, "test": 90},
        "excluded": {"no consent": 3},
        "split_ms": {"train_end": HORIZON_MS - 1, "validation_end": HORIZON_MS},
        "schema_hash": "0" * 64,
        "digest": "a" * 64,
    }
    return Manifest(**{**facts, **changes})  # type: ignore[arg-type]
