"""What Ray Train costs: seconds an epoch through it, against the same model's own loop with no Ray in the process.

    python -m tests.benchmarks.training [--models recommendation churn] [--epochs 10] [--scale 1]

Every way is a process of its own, on the same rows with the same threads and seed, one after the other. The first half
of the epochs does not count: libraries warm up, and Ray's own processes (its controller, the manager of data sets, some
ten seconds of processor time in all) are still starting beside it. Both must come to the same figures, or nothing was
compared. An epoch through Ray Train ends when its checkpoint is stored and recorded, so that this is what its road adds
to learning. Peak memory is that of a way's whole process tree. The last line is one JSON object.
"""

import argparse
import importlib
import itertools
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from models.task import load_task, model_names
from tests.benchmarks.memory import PeakMemory

PLAIN, ONE, TWO = "plain", "1 worker", "2 workers"
SIZES: dict[str, dict[str, int]] = {
    "anomaly": {"channels": 200},
    "cdn": {"times": 40},
    "churn": {"accounts": 25_000},
    "content": {"viewers": 20_000},
    "ranker": {"viewers": 3_000},
    "recommendation": {"viewers": 1_500, "titles": 400, "length": 80},
}
"""What the planted training set of a model is made with, so that an epoch takes a second or two: of shorter ones the
checkpoint's fixed time is most. Of a model that is not here, as its tests make it."""
SCALED = ("accounts", "channels", "times", "viewers")
ROUNDS_PER_EPOCH = 40  # of boosted trees, for the same reason
LOOK_S = 0.01
ALIKE = 2e-3  # relative: both add up the same numbers in the same order
ALIKE_BY_TWO = 0.15
"""Two workers add up in another order than one, and find other split points for trees in their halves. Thousands of
steps carry the last digit on: with one thread and with two the anomaly network's second epoch differs by a tenth."""


def main() -> None:
    """Run every way for every model and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(model_names()), choices=model_names())
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument("--way", help=argparse.SUPPRESS)  # one way, in a process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        (model,) = options.models
        print(json.dumps(take(model, options.way, options.folder, options.epochs)))
        return
    found = {model: measured(model, options.epochs, options.scale) for model in options.models}
    ways = [way for by_way in found.values() for way in by_way.values()]
    result = {
        "ray_vs_plain": {model: ratio(by_way[ONE], by_way[PLAIN]) for model, by_way in found.items()},
        "two_workers_speedup": {model: ratio(by_way[ONE], by_way[TWO]) for model, by_way in found.items()},
        "data_wait_share": round(max(way.get("data_wait_share", 0.0) for way in ways), 4),
        "peak_gb": round(max(way["peak_gb"] for way in ways), 2),
    }
    print(json.dumps(result))


def measured(model: str, epochs: int, scale: float) -> dict[str, dict[str, Any]]:
    """Seconds an epoch and peak memory of every way."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="reel-training-") as name:
        folder = Path(name)
        planted = importlib.import_module(f"tests.models.{model}.planted")
        size = {key: round(value * scale) if key in SCALED else value for key, value in _size(model)}
        planted.write_training_set(folder / "set", **size)
        # A machine's speed drifts by the minute: plainly before and after, so that both are of the same minutes.
        for way in (PLAIN, ONE, PLAIN, TWO):
            took = in_own_process(model, way, folder, epochs)
            print(json.dumps({model: way, **{key: value for key, value in took.items() if key != "curve"}}), flush=True)
            again = found.get(way, took)
            found[way] = took | {"epoch_s": (again["epoch_s"] + took["epoch_s"]) / 2}
    require_alike(model, {way: one["curve"] for way, one in found.items()})
    return found


def _size(model: str) -> list[tuple[str, int]]:
    return list(SIZES.get(model, {}).items())


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Seconds an epoch of the one over those of the other."""
    return round(one["epoch_s"] / other["epoch_s"], 3)


def require_alike(model: str, curves: dict[str, list[float]]) -> None:
    """Every way has learnt the same. Raises AssertionError."""
    wanted = curves[PLAIN]
    for way, curve in curves.items():
        assert len(curve) == len(wanted), f"{model}, {way}: {len(curve)} epochs and not {len(wanted)}"
        worst = max(abs(ours - theirs) / max(abs(theirs), 1e-9) for ours, theirs in zip(curve, wanted, strict=True))
        limit = ALIKE_BY_TWO if way == TWO else ALIKE
        assert worst <= limit, f"{model}, {way}: the training loss is another one ({curve} and not {wanted})"


def in_own_process(model: str, way: str, folder: Path, epochs: int) -> dict[str, Any]:
    """What `take` returns, and the peak memory of the process that took it and all below."""
    command = [sys.executable, "-m", "tests.benchmarks.training", "--models", model, "--way", way]
    command += ["--folder", str(folder), "--epochs", str(epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        memory = PeakMemory(process.pid)
        said, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors[-2000:])
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return {**found, "peak_gb": round(memory.take() / 1e9, 2)}


def take(model: str, way: str, folder: Path, epochs: int) -> dict[str, Any]:
    """One training: `epoch_s`, an epoch's seconds; `curve`, its training loss; through Ray, what it waited."""
    wanted = {"epochs": epochs, "patience": epochs, "seed": 5, "rounds_per_epoch": ROUNDS_PER_EPOCH}
    known = load_task(model).configure({}).as_dict()
    configuration = {name: value for name, value in wanted.items() if name in known}
    if way == PLAIN:
        return plainly(model, folder / "set", configuration)
    return through_ray(model, folder, configuration, 1 if way == ONE else 2)


def plainly(model: str, training_set: Path, configuration: dict[str, int]) -> dict[str, Any]:
    """The model's own loop over epochs."""
    import torch

    from models.task import Place
    from models.training_set import read_manifest
    from pipelines.splits import read_splits

    task = load_task(model)
    threads = len(psutil.Process().cpu_affinity())
    torch.set_num_threads(threads)
    train, validation = read_splits(task, training_set)
    manifest = read_manifest(training_set, task.needs)
    training = task.start(task.configure(configuration), manifest, train, validation, Place(threads=threads))
    seconds = []
    while not training.done:
        started = time.perf_counter()
        training.epoch()
        seconds.append(time.perf_counter() - started)
    return {"epoch_s": settled(seconds), "curve": [epoch["train_loss"] for epoch in training.curve]}


def through_ray(model: str, folder: Path, configuration: dict[str, int], workers: int) -> dict[str, Any]:
    """The same through `pipelines.train`."""
    import ray

    from pipelines.tracking import Tracking
    from pipelines.train import train

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    own = folder / f"{workers} workers"
    own.mkdir()
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    uri = f"sqlite:///{own / 'mlflow.db'}"
    order = {"tracking_uri": uri, "storage": own, "configuration": configuration, "workers": workers}
    with epoch_ends(own) as ends:
        report = train(model, folder / "set", **order)
    history = Tracking(uri).client.get_metric_history(str(report.wrote["run"]), "train_loss")
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return {
        "epoch_s": settled(seconds),
        "curve": [point.value for point in sorted(history, key=lambda point: point.step)],
        "data_wait_share": round(float(report.did["share of time waiting for data"]), 4),
        "whole_s": round(report.seconds, 2),
    }


@contextmanager
def epoch_ends(storage: Path) -> Iterator[list[float]]:
    """When each epoch that is recorded under `storage` while the block runs was recorded, in seconds of one clock."""
    ends: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            lines = sum(path.read_bytes().count(b"\n") for path in storage.glob("*/epochs.jsonl"))
            ends.extend([time.perf_counter()] * (lines - len(ends)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield ends
    finally:
        over.set()
        watcher.join()


def settled(seconds: list[float]) -> float:
    """The median of the second half of epochs' seconds."""
    return round(statistics.median(seconds[len(seconds) // 2 :]), 4)


if __name__ == "__main__":
    main()
