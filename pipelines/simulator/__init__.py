"""A simulated streaming platform with known truth: who watches what and why, over which network, and who leaves.

`simulate(SimulationConfig(...), truth_folder)` yields `EventBatch`es. Order of reading: `config`, `platform` (with
`catalogue` and `network`), `behaviour` (with `choice`, `play` and `state`), `accounts`, `events`, `mischief`, `tables`,
`truth`, `simulation`.
"""

from pipelines.event_batch import EventBatch, RubbishMessage
from pipelines.simulator.config import SimulationConfig
from pipelines.simulator.simulation import simulate

__all__ = ["EventBatch", "RubbishMessage", "SimulationConfig", "simulate"]
