"""`/metrics` for many replicas: a scrape reaches one of them, whichever the proxy chooses, and shows those of all.

Each replica leaves its metrics in Ray's key-value store (of the cluster's head) every `PUT_EVERY_S`, and the one that
is asked puts its own there too, reads all and answers them with a label `replica`. They are not added up here: a
counter that is the sum over replicas would fall when one of them ends, and Prometheus would take the rest for an
increase. By replica, each only ever grows, and the one that ended is shown a minute longer, so that its last requests
are scraped.

Ray's own exporter (`ray.util.metrics`) was the other way: it has a port a node that has to be discovered, a delay of
up to 10 s, and costs an RPC a record; and whoever has only the service's address could not scrape.
"""

import logging
import pickle
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from ray.experimental import internal_kv

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PUT_EVERY_S = 1.0
SHOWN_FOR_S = 60.0
_NAMESPACE = b"reel-metrics"

_log = logging.getLogger(__name__)


class Replicas:
    """The metrics of this replica and of the others of its application."""

    def __init__(self, application: str, replica: str, registry: CollectorRegistry) -> None:
        self._prefix = f"{application}/"
        self._replica = replica
        self._registry = registry

    def start(self) -> None:
        """Leave this replica's metrics for the others, from a thread, until the process ends."""
        threading.Thread(target=self._keep_putting, name="metrics", daemon=True).start()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them. Raises RuntimeError if Ray's store cannot be asked."""
        self.put()
        found: dict[str, list[Metric]] = {}
        for key in internal_kv._internal_kv_list(self._prefix, namespace=_NAMESPACE):
            value = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)
            if value is None:
                continue  # removed meanwhile
            at_s, metrics = pickle.loads(value)  # put there by a replica of the same cluster
            if time.time() - at_s > SHOWN_FOR_S:
                internal_kv._internal_kv_del(key, namespace=_NAMESPACE)
                continue
            found[key.decode().removeprefix(self._prefix)] = metrics
        return together(found)

    def put(self) -> None:
        """Leave this replica's metrics as they are now."""
        value = pickle.dumps((time.time(), list(self._registry.collect())))
        internal_kv._internal_kv_put(self._prefix + self._replica, value, overwrite=True, namespace=_NAMESPACE)

    def _keep_putting(self) -> None:
        pause = threading.Event()
        while not pause.wait(PUT_EVERY_S):
            try:
                self.put()
            except Exception:  # noqa: BLE001 - the next second is another try
                _log.exception("metrics were not passed on")


def together(of_replicas: Mapping[str, Iterable[Metric]]) -> bytes:
    """The text of one scrape: each metric once, with the samples of every replica, told apart by `replica`."""
    families: dict[str, Metric] = {}
    for replica, metrics in sorted(of_replicas.items()):
        for metric in metrics:
            family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    family.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Given(families.values()))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
