"""The tables that clean fills from bronze, and which events go into each: read off the contract."""

from dataclasses import dataclass, replace

from pipelines.contract.events import Contract, EventSchema
from pipelines.lakehouse import tables
from pipelines.lakehouse.tables import TableSpec
from pipelines.silver.rules import Rules

TITLES, SUBSCRIPTIONS = "silver.titles", "silver.subscriptions"
CATALOGUE_EVENTS = ("title.added", "title.updated", "availability.changed")

# Bronze has these of every event, beside the event's own columns.
_COMMON = [
    *tables.VIEWER.names,
    *tables.ENRICHED.names,
    *(name for name in tables.ORIGIN.names if name != "cluster_id"),
    "trace_id",
]


@dataclass(frozen=True)
class Readable:
    """One event as it is read from bronze. `topic` is given when another event has the same name."""

    name: str
    topic: str | None
    columns: tuple[str, ...]
    rules: Rules


@dataclass(frozen=True)
class Target:
    """One table of silver and its events."""

    spec: TableSpec
    events: tuple[Readable, ...]

    @property
    def name(self) -> str:
        """The table's name."""
        return self.spec.name


def targets(contract: Contract, event_partition: str) -> tuple[Target, ...]:
    """What is known of content and viewers first, then one table a domain."""
    subscribed = _readable(contract, contract.event("entitlement.changed"))
    subscribed = replace(subscribed, rules=replace(subscribed.rules, required=("user_id",)))
    catalogue = tuple(_readable(contract, contract.event(name)) for name in CATALOGUE_EVENTS)
    domains = sorted({event.domain for event in contract.events})
    return (
        Target(tables.silver_titles(), catalogue),
        Target(tables.silver_subscriptions(), (subscribed,)),
        *(
            Target(
                tables.silver_domain(contract, domain, event_partition),
                tuple(_readable(contract, event) for event in contract.events if event.domain == domain),
            )
            for domain in domains
        ),
    )


def _readable(contract: Contract, event: EventSchema) -> Readable:
    shares_name = sum(other.name == event.name for other in contract.events) > 1
    names = [column.name for column in event.columns if column.name not in tables.BRONZE_ONLY_COLUMNS]
    columns = tuple(dict.fromkeys((*names, *_COMMON)))
    return Readable(event.name, event.topic if shares_name else None, columns, Rules.of(event))
