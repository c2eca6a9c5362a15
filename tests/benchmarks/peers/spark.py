"""PySpark's structured streaming, in an environment of its own: installed once, with uv and Maven, and kept."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import ReelError
from pipelines.kafka.jars import fetch_jars, find_java
from tests.benchmarks.bench import BENCH_FOLDER
from tests.benchmarks.peers.consuming import PROCESSES, Consumed

SPARK_VERSION = "4.1.1"  # spark.xml names the same
_HERE = Path(__file__).parent


class SparkMissing(Exception):
    """Spark cannot be run here; the message says why."""


def spark(bootstrap: str, writers: Mapping[str, Mapping[int, tuple[str, str]]], folder: Path) -> Consumed:
    """Decode whole topics into Parquet under `folder`; `writers`: topic -> schema id -> event and Avro schema.

    The clock starts when Spark's session stands. Raises SparkMissing.
    """
    try:
        find_java()
        jars = BENCH_FOLDER / "spark-jars"
        fetch_jars(jars, _HERE / "spark.xml")
        python = _environment()
    except (ReelError, subprocess.CalledProcessError) as error:
        raise SparkMissing(f"Spark could not be installed: {error}") from None
    folder.mkdir()
    job = {
        "bootstrap": bootstrap,
        "cores": PROCESSES,
        "jars": [str(jar) for jar in sorted(jars.glob("*.jar"))],
        "topics": writers,
        "folder": str(folder),
    }
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [python, _HERE / "spark_job.py", folder / "job.json"],
        env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SparkMissing(f"Spark failed: {_last_words(done.stderr)}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Consumed(said["messages"], said["seconds"])


def _environment() -> Path:
    """The interpreter of Spark's environment, made on first use."""
    folder = BENCH_FOLDER / "spark"
    python = folder / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    # Nothing happens where it is installed already.
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"pyspark=={SPARK_VERSION}"], check=True)
    return python


def _last_words(errors: str) -> str:
    """The line that says what was wrong: the first cause, else the last line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    causes = [line for line in lines if "Exception" in line or "Error" in line]
    return (causes or lines or ["it said nothing"])[-1][:500]
