"""Feature builds one after the other in one process with one Ray, so that what starting them costs is in none of them.

Every line on standard input is the path of a configuration; the answer is the line that `reel features --json` gives.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from pipelines.build_features import build_features
from pipelines.cluster import connected
from pipelines.settings import load_settings
from pipelines.settings_section import PROJECT_ROOT
from tests.benchmarks.bench import SALT, Run
from tests.benchmarks.memory import PeakMemory


class WarmBuilds:
    """Such a process; what it and its Ray used most is measured build by build."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self._process, self._errors = process, errors

    def build(self, config: Path) -> Run:
        """`reel features` with this configuration. Raises RuntimeError with the process's errors if it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        memory = PeakMemory(self._process.pid)
        print(config, file=self._process.stdin, flush=True)
        said = self._process.stdout.readline()
        peak_bytes = memory.take()
        if not said:
            raise RuntimeError(self._errors.read_text()[-2000:])
        return Run(json.loads(said), peak_bytes)


@contextmanager
def warm_builds(first: Path, errors: Path) -> Iterator[WarmBuilds]:
    """A process that builds, warmed up by one build with the configuration `first`; it ends with the block."""
    with errors.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.warm_builds"], cwd=PROJECT_ROOT,
            env=os.environ | {"REEL_SALT": SALT}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
        )  # fmt: skip
    builds = WarmBuilds(process, errors)
    try:
        builds.build(first)
        yield builds
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def main() -> None:
    """Build as long as configurations come."""
    environ = {"REEL_SALT": os.environ["REEL_SALT"]}
    first = sys.stdin.readline()
    with connected(load_settings(Path(first.strip()), environ)):
        for config in chain([first], sys.stdin):
            report = build_features(load_settings(Path(config.strip()), environ))
            print(json.dumps(report.as_dict()), flush=True)


if __name__ == "__main__":
    main()
