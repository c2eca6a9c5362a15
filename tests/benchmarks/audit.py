"""What a record of the audit log costs, and how that grows over many records.

Each record is a commit of its own, and every run makes two. Processor and wall milliseconds, means over the first and
the last tenth; nobody compacts meanwhile.

    python -m tests.benchmarks.audit [--records N]
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from pipelines.lakehouse.audit import AuditLog
from pipelines.settings import Settings

FACTS = {
    "who": "reel",
    "station": "ingest",
    "run_id": "00000000-0000-0000-0000-000000000000",
    "code_version": "0.1.0-0123456789ab",
    "outcome": "completed",
    "purposes": [],
    "read": {f"client.topic-{topic}": 100_000 for topic in range(24)},
    "did": {f"event of topic {topic}: dropped": 1000 for topic in range(24)},
    "wrote": {"bronze.events": 2_000_000, "quarantine.events": 12},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Settings(work_dir=Path(folder)), options.records)))


def measure(settings: Settings, records: int) -> dict[str, float]:
    log = AuditLog(settings)
    processor_ms, wall_ms = [], []
    log.add(FACTS)  # makes the table
    for _ in range(records):
        started = time.process_time(), time.perf_counter()
        log.add(FACTS)
        processor_ms.append((time.process_time() - started[0]) * 1000)
        wall_ms.append((time.perf_counter() - started[1]) * 1000)
    tenth = max(1, records // 10)
    first_ms, last_ms = statistics.fmean(processor_ms[:tenth]), statistics.fmean(processor_ms[-tenth:])
    return {
        "records": records,
        "first_ms": round(first_ms, 1),
        "last_ms": round(last_ms, 1),
        "growth": round(last_ms / first_ms, 2),
        "wall_median_ms": round(statistics.median(wall_ms), 1),
    }


if __name__ == "__main__":
    main()
