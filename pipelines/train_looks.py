"""When Ray Train's controller looks at its workers: ever sooner while an epoch comes to its end.

An epoch's report waits for the controller's next look, so looks must be frequent; but each costs the controller and
the worker some milliseconds, for which whatever runs on all processors waits: with five a second the controller took
a third more processor time than with one.

An epoch takes about as long as the shortest before it, so the controller sleeps for half of what should be left. (The
one before it may seem longer than it was: a process that was stopped for a while counts that too.)
"""

import time

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus

LONGEST_SLEEP_S = 2.0
"""Between two looks, whatever the epochs take: Ray Train's own default. A worker's death is noticed by a look."""


class RareLooks(WorkerGroupCallback):
    """Has the controller sleep after a look that found nothing new.

    Not after the look that found a report: if that was the last one, the next look finds the end.
    """

    def __init__(self) -> None:
        self._reported_s: float | None = None
        self._shortest_s: float | None = None

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Called by the controller, in its process, after every look."""
        now_s = time.monotonic()
        statuses = worker_group_status.worker_statuses.values()
        if any(one.training_report is not None for one in statuses):
            if self._reported_s is not None:
                took_s = now_s - self._reported_s
                self._shortest_s = took_s if self._shortest_s is None else min(took_s, self._shortest_s)
            self._reported_s = now_s
            return
        if self._reported_s is None or self._shortest_s is None:
            return
        if all(one.running and one.error is None for one in statuses):
            left_s = self._reported_s + self._shortest_s - now_s
            time.sleep(min(max(left_s / 2, 0.0), LONGEST_SLEEP_S))
