"""Traffic: the platform's whole mix of events at its own rates, to load a pipeline and to check its counts.

The simulator tells a story (people, tastes, sessions); this makes volume. Equal configurations give equal bytes.
"""

from pipelines.traffic.config import TrafficConfig
from pipelines.traffic.headers import trace_headers
from pipelines.traffic.ledger import Ledger
from pipelines.traffic.source import Traffic, TrafficBatch

__all__ = ["Ledger", "Traffic", "TrafficBatch", "TrafficConfig", "trace_headers"]
