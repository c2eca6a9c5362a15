"""One training in a process of its own, for tests that kill it: `python -m tests.pipelines.train_once ORDER.json`."""

import json
import sys
from pathlib import Path

import ray


def main(order_path: str) -> None:
    """Trains as the order says; the last line of output is the report."""
    from pipelines.train import train

    order = json.loads(Path(order_path).read_text())
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    report = train(
        "recommendation",
        Path(order["training_set"]),
        tracking_uri=order["tracking_uri"],
        storage=Path(order["storage"]),
        configuration=order["configuration"],
    )
    print(json.dumps(report.as_dict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
