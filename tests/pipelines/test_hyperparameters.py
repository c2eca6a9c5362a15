"""What `reel train --config` takes: files and `key=number`, each over the one before, all over the settings."""

from pathlib import Path

import pytest

from pipelines.hyperparameters import HyperparameterError, hyperparameters
from pipelines.settings import Settings, TrainingSettings

SETTINGS = Settings(training=TrainingSettings(seed=5, models={"churn": {"depth": 3, "lr": 0.1}, "other": {"lr": 9}}))


def test_what_is_said_last_holds(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("depth: 6\nrounds_per_epoch: 10\n")
    assert hyperparameters(SETTINGS, "churn", []) == {"seed": 5, "depth": 3, "lr": 0.1}
    assert hyperparameters(SETTINGS, "churn", [str(file), "lr=1e-2", "depth=7"]) == {
        "seed": 5, "depth": 7, "lr": 0.01, "rounds_per_epoch": 10,
    }  # fmt: skip
    assert hyperparameters(SETTINGS, "churn", ["depth=7", str(file)])["depth"] == 6
    assert hyperparameters(SETTINGS, "recommendation", ["seed=0"]) == {"seed": 0}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("depth=deep", "depth=deep: write a hyperparameter as key=number"),
        ("depth=", "key=number"),
        ("=3", "key=number"),
        ("depth=true", "key=number"),
        ("depth=[1", "key=number"),
        ("nowhere.yaml", "nowhere.yaml: No such file"),
        ("list.yaml", "holds a list"),
        ("broken.yaml", "is not YAML"),
    ],
)
def test_anything_else_is_one_line(given: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("{a: ")
    with pytest.raises(HyperparameterError, match=named) as raised:
        hyperparameters(SETTINGS, "churn", [given])
    assert "\n" not in str(raised.value)
