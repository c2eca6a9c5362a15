"""Models against the truth: how far each is from the best that anybody could do who knew the simulated people.

Protocol: a platform is simulated (`pipelines.simulator`), models learn from its events alone, and what they come to is
put beside an oracle that knows the tastes, hazards and qualities behind these events. The target is within 5 % of the
oracle's metric, the goal within 1 %. A folder with a `config.json` of `SimulationConfig` settings simulates another
platform: `--data FOLDER`.

A judge takes the world and answers figures by name. To add one, write a module in `tests/benchmarks/simulated/` and
name it in `JUDGES`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.simulator import SimulationConfig
from tests.benchmarks.simulated import recommendation
from tests.benchmarks.simulated.world import World

MAKES_ITS_DATA = True
"""Nothing is read from a folder but settings, if there is one."""
JUDGES: dict[str, Callable[[World], dict[str, Any]]] = {"recommendation": recommendation.judge}
CONFIG = SimulationConfig(households=600, days=60, heartbeat_s=600)


def judge(folder: Path) -> dict[str, Any]:
    """Every judge's figures on one world."""
    settings = folder / "config.json"
    config = replace(CONFIG, **json.loads(settings.read_text())) if settings.exists() else CONFIG
    world = World.of(config)
    return {name: of_model(world) for name, of_model in JUDGES.items()}
