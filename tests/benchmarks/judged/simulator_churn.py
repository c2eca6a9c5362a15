"""Churn against the simulator's truth: how far from who knows every household's true hazard of cancelling.

Protocol: a platform is simulated (`pipelines.simulator`); households who all allow everything, so that the road from
Kafka to silver, which is tested elsewhere, would change nothing. Rows, labels and splits are those that
`models/churn/training_set.py` declares; the model learns from the features of events alone.

The oracle knows what the simulator draws from: the hazard `h` of the day before each row. It says `1 - (1 - h)^30`.
Within 5 % of its AUC is the target, within 1 % the goal. A `config.json` of `SimulationConfig` settings in the folder
simulates another platform.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import milliseconds
from features.groups import GROUPS
from features.source import Source
from features.timeline import Timeline
from features.training.labels import label_values
from features.training.splits import SPLITS
from features.windows import HOUR_MS
from models.churn.features import FEATURES
from models.churn.judging import evaluate
from models.churn.model import ChurnConfig
from models.churn.training import ACCOUNT, ChurnTraining
from models.churn.training_set import TRAINING_SET
from models.classification import classified
from models.intervals import Interval
from models.task import Place
from models.training_set import Manifest
from pipelines.contract.events import Contract, load_contract
from pipelines.lakehouse.tables import TITLE_HISTORY, silver_domain
from pipelines.settings import Settings
from pipelines.simulator import SimulationConfig, simulate
from pipelines.simulator.config import DAY_MS

MAKES_ITS_DATA = True
"""Nothing is read from a folder but settings, if there is one."""
CONFIG = SimulationConfig(households=4_000, days=150, heartbeat_s=1_800, titles=100)
# Nobody refuses anything and nobody is a child: what consent does to the rows is not what is judged here.
_ALL_ALLOWED = dict.fromkeys(
    (
        "kids_share",
        "analytics_refusal",
        "personalization_refusal",
        "consent_change_rate",
        "resend_rate",
        "rubbish_rate",
        "missing_session_rate",
    ),
    0.0,
)
# Rows of one account on successive days say nearly the same: without a heavy hand the trees learn accounts by heart.
_CONFIGURATIONS: tuple[dict[str, float], ...] = (
    {},
    {"depth": 1, "lr": 0.1, "leaf_weight": 50, "patience": 8},
    {"depth": 2, "lr": 0.1},
    {"depth": 2, "lr": 0.03, "leaf_weight": 50, "ridge": 10, "patience": 8},
    {
        "depth": 3,
        "lr": 0.03,
        "leaf_weight": 50,
        "rows_share": 0.5,
        "columns_share": 0.5,
        "rounds_per_epoch": 10,
        "patience": 8,
    },
    {"depth": 3, "lr": 0.02, "leaf_weight": 100, "rows_share": 0.5, "columns_share": 0.4, "patience": 10},
)
SEED = 17


def judge(folder: Path) -> dict[str, Any]:
    """The model of the best validation AUC-PR on the test rows, beside its baselines and the oracle."""
    settings = folder / "config.json"
    config = replace(CONFIG, **json.loads(settings.read_text())) if settings.exists() else CONFIG
    splits, chances = rows_of(replace(config, **_ALL_ALLOWED))
    manifest = _manifest()
    tried, best = {}, None
    for values in _CONFIGURATIONS:
        configuration = ChurnConfig.from_dict(values)
        training = ChurnTraining(configuration, manifest, splits["train"], splits["validation"], Place())
        while not training.done:
            training.epoch()
        reached = training.curve[training.best_epoch - 1]
        tried[json.dumps(values)] = {name: round(reached[name], 4) for name in ("validation_auc_pr", "validation_auc")}
        if best is None or reached["validation_auc_pr"] > best[0]:
            best = reached["validation_auc_pr"], training
    assert best is not None
    with tempfile.TemporaryDirectory() as saved:
        best[1].best().save(Path(saved))
        judged = evaluate(Path(saved), manifest, splits["test"], SEED)
    truth = splits["test"]["churned"].to_numpy().astype(float)
    oracle = classified(truth, {"oracle": chances["test"]}, splits["test"][ACCOUNT].to_numpy(), SEED)[0]["oracle"]
    figures = {name: _plain(value) for name, value in judged.whole.figures.items()}
    figures |= {f"oracle_{name}": _plain(value) for name, value in vars(oracle).items()}
    figures["auc_of_oracles"] = figures["auc"][0] / oracle.auc.mean
    return {"rows": {split: len(rows) for split, rows in splits.items()}, **figures, "tried": tried}


def _manifest() -> Manifest:
    """What the training reads of one: its digest and its horizon."""
    return Manifest(
        name=TRAINING_SET.name,
        purpose=str(TRAINING_SET.purpose),
        snapshots={},
        seed=CONFIG.seed,
        code_version="",
        features=list(FEATURES),
        rows={},
        excluded={},
        split_ms={},
        schema_hash="",
        digest="simulated",
        horizon_ms=TRAINING_SET.horizon_ms,
    )


def rows_of(config: SimulationConfig) -> tuple[dict[str, pa.Table], dict[str, np.ndarray]]:
    """(rows of each split as the declared training set would have them, the oracle's probability of each row)."""
    with tempfile.TemporaryDirectory() as folder:
        tables, hazards = _silver(config, Path(folder))
    spine = TRAINING_SET.spine
    accounts = spine.source.make(tables)
    until_ms = config.start_ms + config.days * DAY_MS
    rows = spine.rows(accounts, until_ms)
    at_ms = milliseconds(rows["event_timestamp"])
    whole = (at_ms + TRAINING_SET.horizon_ms < until_ms) & (at_ms > config.start_ms)
    rows, at_ms = rows.filter(pa.array(whole)), at_ms[whole]
    (label,) = TRAINING_SET.labels
    people, owners = np.unique(rows[ACCOUNT].to_numpy(), return_inverse=True)
    (churned,) = label_values([label], TRAINING_SET.horizon_ms, accounts, pa.array(people), owners, at_ms)
    rows = rows.append_column(label.name, churned).append_column("weight", pa.array(np.ones(len(rows))))
    rows = _with_features(rows, tables, at_ms)
    hours, counts = np.unique(at_ms // HOUR_MS, return_counts=True)
    bounds = TRAINING_SET.split.bounds(TRAINING_SET.gap_ms, dict(zip(hours.tolist(), counts.tolist(), strict=True)))
    place = bounds.split_of(at_ms)
    chances = _chances(hazards, rows, (at_ms - config.start_ms) // DAY_MS)
    masks = {split: place == number for number, split in enumerate(SPLITS)}
    return (
        {split: rows.filter(pa.array(mask)) for split, mask in masks.items()},
        {split: chances[mask] for split, mask in masks.items()},
    )


def _with_features(rows: pa.Table, tables: dict[str, pa.Table], at_ms: np.ndarray) -> pa.Table:
    for group in GROUPS:
        wanted = [name.partition(".")[2] for name in FEATURES if name.startswith(f"{group.name}.")]
        if not wanted:
            continue
        values = Timeline.of_events(group, ACCOUNT, group.source.make(tables)).values_at(rows[ACCOUNT], at_ms)
        for name in wanted:
            rows = rows.append_column(f"{group.name}__{name}", values[name])
        if f"{group.name}__age_ms" in values.column_names:
            rows = rows.append_column(f"{group.name}__age_ms", values[f"{group.name}__age_ms"])
    return rows


def _chances(hazards: pa.Table, rows: pa.Table, day: np.ndarray) -> np.ndarray:
    """[rows] the chance of thirty days with the hazard of the day before."""
    users, place = np.unique(hazards[ACCOUNT].to_numpy(), return_inverse=True)
    days = hazards["day"].to_numpy()
    by_day = np.zeros((days.max() + 1, len(users)))
    by_day[days, place] = hazards["hazard"].to_numpy()
    mine = np.searchsorted(users, rows[ACCOUNT].to_numpy())
    return 1 - (1 - by_day[day - 1, mine]) ** (TRAINING_SET.horizon_ms // DAY_MS)


def _silver(config: SimulationConfig, folder: Path) -> tuple[dict[str, pa.Table], pa.Table]:
    """(the tables of silver that the sources read, the true hazards)."""
    contract = load_contract(Settings().schemas)
    groups = [group for group in GROUPS if any(name.startswith(f"{group.name}.") for name in FEATURES)]
    sources: list[Source] = [TRAINING_SET.spine.source, *(group.source for group in groups)]
    reads: dict[str, set[str]] = {}
    for source in sources:
        for table, columns in {**source.reads, **source.shared}.items():
            reads.setdefault(table, set()).update(columns)
    parts: dict[str, list[pa.Table]] = {table: [] for table in reads}
    for batch in simulate(config, folder):
        for name, events in batch.tables.items():
            table = "silver.titles" if name == "title.added" else f"silver.{contract.event(name).domain}"
            if table in reads:
                parts[table].append(_as_silver(contract, table, sorted(reads[table]), events))
    return (
        {table: pa.concat_tables(some) for table, some in parts.items()},
        pq.read_table(folder / "hazards.parquet", columns=["day", ACCOUNT, "hazard"]),
    )


def _as_silver(contract: Contract, table: str, columns: Sequence[str], events: pa.Table) -> pa.Table:
    """These columns of events as silver has them: pseudonyms are the ids themselves, a viewer's token the profile's."""
    is_titles = table == "silver.titles"
    schema = TITLE_HISTORY if is_titles else silver_domain(contract, table.partition(".")[2], "month").schema
    if is_titles:
        events = events.rename_columns({"title": "content_title", "maturity_rating": "content_maturity_rating"})
    elif "profile_id" in events.column_names:
        events = events.append_column("viewer_token", events["profile_id"])
    found = {
        name: events[name].cast(schema.field(name).type)
        if name in events.column_names
        else pa.nulls(len(events), schema.field(name).type)
        for name in columns
    }
    return pa.table(found)


def _plain(figure: Interval | float) -> Any:
    if isinstance(figure, Interval):
        return [round(figure.mean, 4), round(figure.low, 4), round(figure.high, 4)]
    return round(figure, 4)
