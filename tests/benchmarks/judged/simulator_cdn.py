"""Routing against the simulator's truth: how far from who knows what every network gives in every region and hour.

Protocol: a platform is simulated (`pipelines.simulator`) in which everybody allows everything; its networks are chosen
at random. Rows, labels, features and splits are those that `models/cdn/training_set.py` declares. Judged is which
network the model would choose for each test row, by the true score of that choice.

The true score of a network for a row is the mean of 400 playbacks of half an hour drawn with the network's effects in
that region and hour (`cdn_effects.parquet`) and the row's connection: throughput to the ladder, stalls, start time,
then `features.sources.session_quality`. The oracle chooses the highest. `running` is what the log's policy earned,
`best_single` always one network, the best on the train rows. Intervals: bootstrap over accounts. A `config.json` of
`SimulationConfig` settings in the folder simulates another platform.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import milliseconds
from features.entities import key_of
from features.sources.session_quality import level, score
from features.timeline import Timeline
from features.training.labels import label_values
from features.training.splits import SPLITS
from features.windows import DAY_MS, HOUR_MS
from models.cdn.features import FEATURES
from models.cdn.quality import QualityConfig, QualityModel
from models.cdn.rows import ACCOUNT, over_each_network, prepared
from models.cdn.training import QualityTraining
from models.cdn.training_set import TRAINING_SET
from models.intervals import bootstrap
from models.task import Place
from models.training_set import Manifest
from pipelines.contract.events import load_contract
from pipelines.settings import Settings
from pipelines.simulator import SimulationConfig, simulate
from pipelines.simulator.platform import CONNECTION_SPEED, CONNECTION_STALLS, CONNECTIONS
from pipelines.simulator.play import LADDER_KBPS
from tests.benchmarks.judged.simulator_churn import _ALL_ALLOWED, _as_silver

MAKES_ITS_DATA = True
"""Nothing is read from a folder but settings, if there is one."""
CONFIG = SimulationConfig(households=500, days=40, heartbeat_s=600, titles=100)
_CONFIGURATIONS: tuple[dict[str, float], ...] = ({}, {"leaves": 7}, {"leaves": 15, "lr": 0.03, "leaf_rows": 100})
SEED = 17
DRAWN = 400
WATCHED_MS = 30 * 60_000
STALL_MS = 2_000
"""What the simulator draws stalls around."""
_START_SPREAD, _THROUGHPUT_SPREAD, _STALL_SPREAD, _SAFETY = 0.45, 0.35, 0.7, 0.8


def judge(folder: Path) -> dict[str, Any]:
    """True scores of what the model of the best validation R2 chooses, beside the log's policy and the oracle's."""
    settings = folder / "config.json"
    config = replace(CONFIG, **json.loads(settings.read_text())) if settings.exists() else CONFIG
    splits, effects = rows_of(replace(config, **_ALL_ALLOWED))
    tried, best = {}, None
    for values in _CONFIGURATIONS:
        training = QualityTraining(
            QualityConfig.from_dict(values), _manifest(), splits["train"], splits["validation"], Place(threads=1)
        )
        while not training.done:
            training.epoch()
        reached = training.curve[training.best_epoch - 1]["validation_r2"]
        tried[json.dumps(values)] = round(reached, 4)
        if best is None or reached > best[0]:
            best = reached, training.best()
    assert best is not None
    return {
        "rows": {split: len(rows) for split, rows in splits.items()},
        **compare(best[1], prepared(splits["test"], "test"), prepared(splits["train"], "train"), effects),
        "validation_r2": tried,
    }


def compare(model: QualityModel, test: pa.Table, train: pa.Table, effects: pl.DataFrame) -> dict[str, Any]:
    """Mean true scores of each way to choose on the test rows, and the model's as a share of the oracle's."""
    networks = model.running.networks
    true = true_scores(test, networks, effects)
    scores = np.column_stack([model.scores(one) for one in over_each_network(test, networks)])
    row = np.arange(len(test))
    means = [np.mean(train["score"].to_numpy()[train["cdn"].to_numpy() == network]) for network in networks]
    logged = np.array([networks.index(one) for one in test["cdn"].to_pylist()])
    earned = np.column_stack(
        [
            true[row, scores.argmax(axis=1)],
            (model.policy(scores) * true).sum(axis=1),
            true[row, logged],
            true[:, int(np.argmax(means))],
            true.max(axis=1),
        ]
    )

    def measured(times: np.ndarray) -> np.ndarray:
        mean = times @ earned / times.sum()
        return np.append(mean, [mean[0] / mean[-1], (mean[-1] - mean[0]) / (mean[-1] - mean[2])])

    names = ("model", "model_exploring", "running", "best_single", "oracle", "model_of_oracles", "regret_of_runnings")
    found = bootstrap(measured, test[ACCOUNT].to_numpy(), SEED, 500)
    return {name: [round(x, 4) for x in (one.mean, one.low, one.high)] for name, one in zip(names, found, strict=True)}


def true_scores(rows: pa.Table, networks: tuple[str, ...], effects: pl.DataFrame) -> np.ndarray:
    """[rows, networks] mean score of playbacks drawn with each network's effects; the same draws for all of them."""
    random = np.random.default_rng(SEED)
    fast, slow, stalls, long = (random.normal(size=DRAWN) for _ in range(4))
    keys = pl.DataFrame(
        {
            "hour": milliseconds(rows["event_timestamp"]) // HOUR_MS,
            "region": rows["region"].to_pylist(),
            "connection": [
                CONNECTIONS.index(one) if one in CONNECTIONS else 1
                for one in rows["session_context__connection_type"].to_pylist()
            ],
        }
    )
    found = keys
    cells = keys.unique().join(effects, on=["hour", "region"], how="inner")
    speed, stalling = (
        CONNECTION_SPEED[cells["connection"].to_numpy()],
        CONNECTION_STALLS[cells["connection"].to_numpy()],
    )
    throughput = (cells["throughput_kbps"].to_numpy() * speed)[:, None] * np.exp(_THROUGHPUT_SPREAD * fast)
    rung = np.maximum(np.searchsorted(LADDER_KBPS, _SAFETY * throughput, side="right") - 1, 0)
    rate = (cells["stalls_per_hour"].to_numpy() * stalling * WATCHED_MS / HOUR_MS)[:, None]
    count = np.maximum(np.round(rate + np.sqrt(rate) * stalls), 0)  # the normal's likeness of a Poisson draw
    drawn = pl.DataFrame(
        {
            "cell": np.repeat(np.arange(len(cells)), DRAWN),
            "kbps": np.array(LADDER_KBPS)[rung].ravel(),
            "stalls": count.ravel().astype(np.int64),
            "stalled_ms": (count * STALL_MS * np.exp(_STALL_SPREAD * long)).ravel(),
            "start_ms": (cells["start_ms"].to_numpy()[:, None] * np.exp(_START_SPREAD * slow)).ravel(),
        }
    ).with_columns(level(pl.col("kbps")).alias("level"), watched=pl.lit(WATCHED_MS))
    watched, rungs = pl.col("watched"), pl.col("level")
    value = score(
        watched, watched * rungs, watched * rungs**2, pl.col("stalls"), pl.col("stalled_ms"), pl.col("start_ms")
    )
    means = drawn.with_columns(value.alias("score")).group_by("cell", maintain_order=True).agg(pl.col("score").mean())
    cells = cells.with_columns(means["score"])
    for network in networks:
        of_it = cells.filter(pl.col("cdn") == network).select(
            "hour", "region", "connection", pl.col("score").alias(network)
        )
        found = found.join(of_it, on=["hour", "region", "connection"], how="left", maintain_order="left")
    return found.select(networks).to_numpy()


def rows_of(config: SimulationConfig) -> tuple[dict[str, pa.Table], pl.DataFrame]:
    """(rows of each split as the declared training set would have them, the true effects by hour, region, network)."""
    with tempfile.TemporaryDirectory() as folder:
        logs, effects = _logs(config, Path(folder))
    spine, (label,) = TRAINING_SET.spine, TRAINING_SET.labels
    until_ms = config.start_ms + config.days * DAY_MS
    rows = spine.rows(logs[spine.source.name], until_ms)
    at_ms = milliseconds(rows["event_timestamp"])
    whole = at_ms + TRAINING_SET.horizon_ms < until_ms
    rows, at_ms = rows.filter(pa.array(whole)), at_ms[whole]
    keys = key_of([rows[column] for column in label.by]).dictionary_encode()
    owners = keys.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    (scores,) = label_values([label], TRAINING_SET.horizon_ms, logs[label.source.name], keys.dictionary, owners, at_ms)
    for one in TRAINING_SET.selections(rows.column_names):
        timeline = Timeline.of_events(one.group, one.entity, logs[one.group.source.name])
        values = timeline.values_at(rows[one.entity], at_ms)
        for name in (feature.name for feature in one.group.features):
            rows = rows.append_column(one.columns[name], values[name])
    rows = rows.append_column(label.name, scores)
    hours, counts = np.unique(at_ms // HOUR_MS, return_counts=True)
    bounds = TRAINING_SET.split.bounds(TRAINING_SET.gap_ms, dict(zip(hours.tolist(), counts.tolist(), strict=True)))
    place = bounds.split_of(at_ms)
    return {split: rows.filter(pa.array(place == number)) for number, split in enumerate(SPLITS)}, effects


def _logs(config: SimulationConfig, folder: Path) -> tuple[dict[str, pa.Table], pl.DataFrame]:
    """(the logs that rows, labels and features are of, by source; the true effects)."""
    contract = load_contract(Settings().schemas)
    names = ("session_id", "user_id", "cdn", "cdn_region", "event_timestamp", "event_id")
    sources = {one.group.source for one in TRAINING_SET.selections(names)} | {TRAINING_SET.spine.source}
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
    tables = {table: pa.concat_tables(some) for table, some in parts.items()}
    effects = pl.from_arrow(pq.read_table(folder / "cdn_effects.parquet"))
    assert isinstance(effects, pl.DataFrame)
    effects = effects.with_columns(pl.col("hour").dt.epoch("ms") // HOUR_MS)
    return {source.name: source.make(tables) for source in sources}, effects


def _manifest() -> Manifest:
    """What the training reads of one: its digest and its horizon."""
    return Manifest(
        name=TRAINING_SET.name, purpose=str(TRAINING_SET.purpose), snapshots={}, seed=CONFIG.seed, code_version="",
        features=list(FEATURES), rows={}, excluded={}, split_ms={}, schema_hash="", digest="simulated",
        horizon_ms=TRAINING_SET.horizon_ms,
    )  # fmt: skip
