"""What Ray Train costs: seconds an epoch through it, against the same model's own loop with no Ray in the process.

    python -m tests.benchmarks.training [--models recommendation churn] [--epochs 18] [--scale 1]

Every way is a process of its own, on the same rows with the same threads and seed. The first third of the epochs does
not count: libraries warm up, and Ray's own processes (its controller and what that starts, some seconds of
processor time in all) are still starting beside it. Nor does the last one, in which the model is written too. Of those
between, plainly and through Ray with one worker take turns, an epoch each; two workers go after them, for a connection
of LightGBM's does not outlive being stopped. All must come to the same figures, or nothing was compared. An epoch
through Ray Train ends when its checkpoint is stored and recorded, so that this is what its road adds to learning. Peak
memory is that of a way's whole process tree, seen when it is stopped. The last line is one JSON object; its
`ray_vs_plain_95` are the ends of the ratios' 95 % intervals, over pairs of turns.
"""

import argparse
import importlib
import json
import logging
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from models.intervals import bootstrap
from models.task import load_task, model_names
from pipelines.train_epochs import EPOCHS_FILE
from tests.benchmarks.turns import Turns

PLAIN, ONE, TWO = "plain", "1 worker", "2 workers"
SIZES: dict[str, dict[str, int]] = {
    "anomaly": {"channels": 200},
    "cdn": {"times": 60},
    "churn": {"accounts": 60_000},
    "content": {"viewers": 20_000},
    "ranker": {"viewers": 3_000},
    "recommendation": {"viewers": 1_500, "titles": 400, "length": 80},
}
"""What the planted training set of a model is made with, so that an epoch takes a second or two: of shorter ones the
checkpoint's fixed time is most. Of a model that is not here, as its tests make it."""
SCALED = ("accounts", "channels", "times", "viewers")
ROUNDS_PER_EPOCH = 10  # of boosted trees
ALIKE = 2e-3  # relative: both add up the same numbers in the same order
ALIKE_BY_TWO = 0.15
"""Two workers add up in another order than one, and find other split points for trees in their halves. Thousands of
steps carry the last digit on: with one thread and with two the anomaly network's second epoch differs by a tenth."""


def main() -> None:
    """Run every way for every model and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(model_names()), choices=model_names())
    parser.add_argument("--epochs", type=int, default=18)
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
        "ray_vs_plain_95": {model: ratio_95(by_way[ONE], by_way[PLAIN]) for model, by_way in found.items()},
        "two_workers_speedup": {model: ratio(by_way[ONE], by_way[TWO]) for model, by_way in found.items()},
        "data_wait_share": round(max(way.get("data_wait_share", 0.0) for way in ways), 4),
        "peak_gb": round(max(way["peak_gb"] for way in ways), 2),
    }
    print(json.dumps(result))


def measured(model: str, epochs: int, scale: float) -> dict[str, dict[str, Any]]:
    """What every way took: `epoch_s`, the mean of the epochs that count, and what `take` says of it."""
    with tempfile.TemporaryDirectory(prefix="reel-training-") as name, ExitStack() as stack:
        planted = importlib.import_module(f"tests.models.{model}.planted")
        size = {key: round(value * scale) if key in SCALED else value for key, value in _size(model)}
        planted.write_training_set(Path(name) / "set", **size)
        ways = {way: stack.enter_context(begun(model, way, Path(name), epochs)) for way in (PLAIN, ONE, TWO)}
        warm = epochs // 3
        for end in range(warm, epochs):
            for way in (PLAIN, ONE) if end % 2 else (ONE, PLAIN):
                ways[way].take(end)
        ways[TWO].take(epochs)
        found = {way: taken(turns, warm, epochs) for way, turns in ways.items()}
    for way, one in found.items():
        said = {name: value for name, value in one.items() if name not in ("curve", "turns_s")}
        print(json.dumps({model: way} | said), flush=True)
    require_alike(model, {way: one["curve"] for way, one in found.items()})
    return found


def begun(model: str, way: str, folder: Path, epochs: int) -> Turns:
    """A process that trains in one of the ways, and has not got far."""
    own = folder / way
    own.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.training", "--models", model, "--way", way]
    return Turns([*command, "--folder", str(own), "--epochs", str(epochs)], own, EPOCHS_FILE)


def taken(turns: Turns, warm: int, epochs: int) -> dict[str, Any]:
    """What a way took, once it is over."""
    found: dict[str, Any] = json.loads(turns.finish().strip().splitlines()[-1])
    turns_s = np.diff(turns.ends_s[warm - 1 : epochs - 1])
    found |= {"turns_s": turns_s, "epoch_s": round(turns_s.mean(), 4), "peak_gb": round(turns.peak_bytes / 1e9, 2)}
    if "waited_s" in found:  # before the first epoch
        found["data_wait_share"] = round(found.pop("waited_s") / (found.pop("training_s") - turns.stopped_s), 4)
    return found


def _size(model: str) -> list[tuple[str, int]]:
    return list(SIZES.get(model, {}).items())


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Seconds an epoch of the one over those of the other."""
    return round(one["epoch_s"] / other["epoch_s"], 3)


def ratio_95(one: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """The ends of the interval of `ratio`: pairs of turns are drawn, for a pair shares its minutes."""
    ours, theirs = one["turns_s"], other["turns_s"]
    (interval,) = bootstrap(lambda drawn: np.array([drawn @ ours / (drawn @ theirs)]), np.arange(len(ours)), seed=1)
    return [round(interval.low, 3), round(interval.high, 3)]


def require_alike(model: str, curves: dict[str, list[float]]) -> None:
    """Every way has learnt the same. Raises AssertionError."""
    wanted = curves[PLAIN]
    for way, curve in curves.items():
        assert len(curve) == len(wanted), f"{model}, {way}: {len(curve)} epochs and not {len(wanted)}"
        worst = max(abs(ours - theirs) / max(abs(theirs), 1e-9) for ours, theirs in zip(curve, wanted, strict=True))
        limit = ALIKE_BY_TWO if way == TWO else ALIKE
        assert worst <= limit, f"{model}, {way}: the training loss is another one ({curve} and not {wanted})"


def take(model: str, way: str, folder: Path, epochs: int) -> dict[str, Any]:
    """One training: `curve`, its training loss; through Ray, how many of its seconds it waited for rows."""
    wanted = {"epochs": epochs, "patience": epochs, "seed": 5, "rounds_per_epoch": ROUNDS_PER_EPOCH}
    known = load_task(model).configure({}).as_dict()
    configuration = {name: value for name, value in wanted.items() if name in known}
    training_set = folder.parent / "set"
    if way == PLAIN:
        return plainly(model, training_set, folder, configuration)
    return through_ray(model, training_set, folder, configuration, 1 if way == ONE else 2)


def plainly(model: str, training_set: Path, folder: Path, configuration: dict[str, int]) -> dict[str, Any]:
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
    ends = folder / model
    ends.mkdir()
    with (ends / EPOCHS_FILE).open("w", buffering=1) as file:
        while not training.done:
            file.write(json.dumps(training.epoch()) + "\n")
    return {"curve": [epoch["train_loss"] for epoch in training.curve]}


def through_ray(
    model: str, training_set: Path, folder: Path, configuration: dict[str, int], workers: int
) -> dict[str, Any]:
    """The same through `pipelines.train`."""
    from pipelines.cluster import connected
    from pipelines.settings import Settings
    from pipelines.tracking import Tracking
    from pipelines.train import train

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    order = {"tracking_uri": uri, "storage": folder, "configuration": configuration, "workers": workers}
    with connected(Settings(), is_live=True):  # as `reel train` does
        run = str(train(model, training_set, **order).wrote["run"])
    client = Tracking(uri).client
    history = client.get_metric_history(run, "train_loss")
    metrics = client.get_run(run).data.metrics
    return {
        "curve": [point.value for point in sorted(history, key=lambda point: point.step)],
        "waited_s": metrics["data_wait_share"] * metrics["training_s"],
        "training_s": metrics["training_s"],
    }


if __name__ == "__main__":
    main()
