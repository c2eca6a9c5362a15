"""One tuning in a process of its own, for a test that kills it: `python -m tests.pipelines.tune_once ORDER.json`."""

import json
import sys
from pathlib import Path

import ray


def main(order_path: str) -> None:
    """Tunes as the order says; the last line of output is the report."""
    from pipelines.tune import tune

    order = json.loads(Path(order_path).read_text())
    folder = Path(order["folder"])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    report = tune(
        "recommendation",
        Path(order["training_set"]),
        tracking_uri=order["tracking_uri"],
        storage=folder / "tuning",
        best_file=folder / "tuned" / "best.yaml",
        configuration=order["configuration"],
        trials=2,
    )
    print(json.dumps(report.as_dict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
