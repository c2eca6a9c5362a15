"""What traffic is like: how much of it, whose it is, and how badly its senders behave."""

from dataclasses import dataclass, fields

from pipelines.errors import UsageError


class TrafficConfigError(UsageError):
    """A setting of the traffic is out of its range."""


@dataclass(frozen=True)
class TrafficConfig:
    """What to send. Equal configurations give equal events.

    `events` and `seed`; `rate` scales how many of them fall into a second of event time (1 is Phase 1, spec 3.1), which
    begins at `start_ms`; `clients` is the share of client events, the rest are the servers'.

    Whose: `people` profiles, two to an account; `kids_share` of the profiles are children's; `analytics_refusal` of the
    accounts refuse analytics; `titles` in the catalogue.

    Mischief, as shares of all events: `duplicates` are sent again, half of them soon and half at the very end;
    `late` arrive up to an hour late (a client's: up to six hours after its own clock); `malformed` messages that are
    no events come on top; `nameless` lack their event id; of client events, `sessionless` lack their session id.

    Raises TrafficConfigError for a value out of its range.
    """

    events: int
    seed: int = 7
    rate: float = 1.0
    clients: float = 0.0
    start_ms: int = 1_767_600_000_000
    people: int = 100_000
    titles: int = 2_000
    duplicates: float = 0.01
    late: float = 0.01
    malformed: float = 0.0005
    nameless: float = 0.0002
    sessionless: float = 0.0005
    analytics_refusal: float = 0.06
    kids_share: float = 0.1
    events_per_batch: int = 200_000

    def __post_init__(self) -> None:
        least = {"events": 0, "seed": 0, "start_ms": 0, "people": 2, "titles": 1, "events_per_batch": 1}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in least:
                self._check(field.name, value >= least[field.name], f"at least {least[field.name]}")
            elif field.name == "rate":
                self._check("rate", value > 0, "above 0")
            else:
                self._check(field.name, 0 <= value <= 1, "a share from 0 to 1")

    def _check(self, name: str, is_right: bool, wanted: str) -> None:
        if not is_right:
            raise TrafficConfigError(f"traffic: {name} must be {wanted}, received {getattr(self, name)!r}")
