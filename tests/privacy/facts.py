"""What the oracle is told: what viewers said, whose profiles are whose, and events. Instants are whole milliseconds."""

from dataclasses import dataclass
from enum import StrEnum

ANSWERS = ("analytics", "personalization", "ad_targeting")


@dataclass(frozen=True)
class Answers:
    """A consent object (spec 8.2, 2.2) as it came: True, False, None for one left out, else what is no boolean."""

    analytics: object
    personalization: object
    ad_targeting: object

    def allows(self, answer: str) -> bool:
        """Only the boolean true allows: the stricter reading of everything else."""
        return getattr(self, answer) is True


ALL = Answers(True, True, True)
NONE = Answers(False, False, False)


@dataclass(frozen=True)
class Statement:
    """One `consent.changed`: what a user allows from `at_ms` on."""

    user: str
    at_ms: int
    answers: Answers
    market: str | None = None


@dataclass(frozen=True)
class Description:
    """One `profile.updated`: whose profile it is, and whether it is a child's."""

    profile: str
    user: str
    is_kids: bool
    at_ms: int


@dataclass(frozen=True)
class Event:
    """One event. `at_ms`: when the server received it; `ingested_ms`: when Reel read it (design sections 3 and 5)."""

    name: str
    is_client: bool
    at_ms: int
    ingested_ms: int
    user: str | None
    profile: str | None
    market: str | None
    consent: Answers | None = None
    is_of_catalogue: bool = False

    def __post_init__(self) -> None:
        if self.ingested_ms < self.at_ms:
            raise ValueError(f"read at {self.ingested_ms}, before the server received it at {self.at_ms}")

    @property
    def concerns_nobody(self) -> bool:
        """Of the catalogue, and naming no person: "always kept" (configs/essential_events.yaml)."""
        return self.is_of_catalogue and self.user is None and self.profile is None


class Form(StrEnum):
    """What a build makes of rows."""

    PER_PERSON = "per_person"  # rows or features of a person: left tables, negatives, per-user groups
    ANONYMOUS = "anonymous"  # single rows from which every id, and the kids' daily token, has been taken
    AGGREGATE = "aggregate"  # numbers over many viewers


@dataclass(frozen=True)
class Use:
    """A form; of an aggregate also over how many viewers (see `oracle.certain_viewers`) and its boundary."""

    form: Form
    viewers: int = 0
    boundary_ms: int | None = None


PER_PERSON = Use(Form.PER_PERSON)
ANONYMOUS = Use(Form.ANONYMOUS)


def aggregate(viewers: int, boundary_ms: int) -> Use:
    """A published aggregate over `viewers` viewers, of events before `boundary_ms`."""
    return Use(Form.AGGREGATE, viewers, boundary_ms)
