"""How fast the simulator makes events, on one core.

    python -m tests.benchmarks.simulate [--households N] [--days D] [--heartbeat-s S]

The floor is Arrow putting the finished tables' rows into another order (`take`), in the same run: no source of events
can be faster than copying them. The last line is one JSON object; `peak_mb` is the process's highest resident set.
"""

import argparse
import json
import resource
import time

import numpy as np
import pyarrow as pa

from pipelines.simulator import SimulationConfig, simulate


def main() -> None:
    """Simulate, copy, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--households", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--heartbeat-s", type=int, default=30)
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    config = SimulationConfig(households=arguments.households, days=arguments.days, heartbeat_s=arguments.heartbeat_s)
    random = np.random.default_rng(0)
    events, seconds, copying_s = 0, 0.0, 0.0
    batches, cpu_s = simulate(config), 0.0
    while True:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        batch = next(batches, None)
        seconds += time.perf_counter() - begun
        cpu_s += time.process_time() - cpu_begun
        if batch is None:
            break
        events += batch.events
        for table in batch.tables.values():
            order = pa.array(random.permutation(table.num_rows))
            begun = time.perf_counter()
            table.take(order)
            copying_s += time.perf_counter() - begun
    print(f"{events:,} events of {config.households:,} households over {config.days} days")
    print(f"simulated in {seconds:.1f} s ({cpu_s:.1f} s of CPU), copied in {copying_s:.1f} s")
    result = {
        "events": events,
        "events_per_s": round(events / seconds),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "events_per_cpu_s": round(events / cpu_s),
        "floor_events_per_s": round(events / copying_s),
        "ratio_to_floor": round(copying_s / seconds, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
