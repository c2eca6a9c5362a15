"""How good the models are, on data that everybody can get and by protocols that others have published figures for.

    python -m tests.benchmarks.quality --task TASK [--data FOLDER]

A task is a module of `tests/benchmarks/judged/`: its docstring says the protocol and the published figures, its
`judge(folder)` answers the metrics with their intervals, the baselines' beside them. `FOLDER` may hold any data of the
same format; without it the task's own is read from `../shared/data`, or made, by a task with `MAKES_ITS_DATA`. The last
line is one JSON object.
"""

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "judged"
DATA = Path(__file__).parents[3] / "shared" / "data"


def tasks() -> tuple[str, ...]:
    """Every task there is, as `--task` names it."""
    return tuple(sorted(path.stem.replace("_", "-") for path in FOLDER.glob("[a-z]*.py")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge the models on public data.")
    parser.add_argument("--task", required=True, choices=tasks())
    parser.add_argument("--data", type=Path, help="a folder of the task's format (its own in ../shared/data)")
    arguments = parser.parse_args()
    task = importlib.import_module(f"tests.benchmarks.judged.{arguments.task.replace('-', '_')}")
    folder: Path = arguments.data or DATA / getattr(task, "DATA", arguments.task)
    needs_data = arguments.data is not None or not getattr(task, "MAKES_ITS_DATA", False)
    if needs_data and not folder.is_dir():
        parser.error(f"no data at {folder}; give the folder with --data")
    judge: Callable[[Path], dict[str, Any]] = task.judge
    print(json.dumps(judge(folder)))


if __name__ == "__main__":
    main()
