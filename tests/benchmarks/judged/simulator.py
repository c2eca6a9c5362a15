"""Models against the truth: how far each is from the best that anybody could do who knew the simulated people.

Protocol: a platform is simulated (`pipelines.simulator`), models learn from its events alone, and what they come to is
put beside an oracle that knows the tastes, hazards and qualities behind these events. The target is within 5 % of the
oracle's metric, the goal within 1 %. A folder with a `config.json` of `SimulationConfig` settings simulates another
platform: `--data FOLDER`.

A judge takes that folder and answers figures by name; each simulates as large a platform as its model needs. All but
recommendation are tasks of their own too. To add one, name it in `JUDGES`. `of_oracles` sums up: each task's figure, as
a share of the oracle's.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.simulator import SimulationConfig
from tests.benchmarks.judged import simulator_anomaly, simulator_cdn, simulator_churn
from tests.benchmarks.simulated import recommendation
from tests.benchmarks.simulated.world import World

MAKES_ITS_DATA = True
"""Nothing is read from a folder but settings, if there is one."""
CONFIG = SimulationConfig(households=600, days=60, heartbeat_s=600)


def _recommendation(folder: Path) -> dict[str, Any]:
    settings = folder / "config.json"
    config = replace(CONFIG, **json.loads(settings.read_text())) if settings.exists() else CONFIG
    return recommendation.judge(World.of(config))


JUDGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "recommendation": _recommendation,
    "churn": simulator_churn.judge,
    "cdn": simulator_cdn.judge,
    "anomaly": simulator_anomaly.judge,
}


def judge(folder: Path) -> dict[str, Any]:
    """Every judge's figures."""
    found = {name: of_model(folder) for name, of_model in JUDGES.items()}
    shares = {
        "recommendation": found["recommendation"]["shown"]["share_of_oracle"]["mean"],
        "churn": round(found["churn"]["auc_of_oracles"], 4),
        "cdn": found["cdn"]["model_of_oracles"][0],
        "anomaly": found["anomaly"]["recall_of_oracles"],
    }
    return {**found, "of_oracles": shares}
