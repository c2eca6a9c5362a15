"""The simulated platform as the judges of `tests.benchmarks.judged.simulator` see it: what happened, and the truth."""
