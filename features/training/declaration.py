"""What a training set is, said once: whose rows, what is known of them, what came of them, for what it may be used.

TrainingSet(
    name="churn",
    spine=Every(ACCOUNT_SIGNALS, "user_id"),
    features=("churn_signals",),
    purpose=Purpose.PERSONALIZATION,
    label=Label("churned", Happened(), CANCELLATIONS, by=("user_id",)),
    horizon_ms=30 * DAY_MS,
    sampling=Sampling(balance=Balance("churned", ((False, 0.2),))),
)

It is checked when it is made; what depends on rows that somebody else made is checked when it is built.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from features.errors import DeclarationError, PurposeNotAllowedError
from features.groups import GROUPS
from features.purposes import Purpose
from features.selection import Selection, require_purpose, select
from features.source import Source
from features.training.candidates import SeenIn
from features.training.labels import Label
from features.training.sampling import IS_DRAWN, WEIGHT, Sampling
from features.training.spine import INSTANT, Every, FileRows, PerEvent, Spine, TableRows
from features.training.splits import Split, SplitByShare

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True)
class TrainingSet:
    """One training set.

    spine        its rows
    features     groups, or group.feature, as they were at each row's instant (`features.selection`)
    purpose      what it is used for: rows of people who do not allow that are not in it
    label        what came of a row, one column or several, over the horizon after its instant
    horizon_ms   how long after a row's instant its labels look; rows that the data ends before are left out
    sampling     negatives that are drawn, rows that are left out, and the seed
    split        when validation and test begin
    keys         an entity, or one of its columns, to the column of the rows that holds it, where that is called
                 otherwise
    """

    name: str
    spine: Spine
    features: tuple[str, ...]
    purpose: Purpose
    label: Label | tuple[Label, ...]
    horizon_ms: int
    sampling: Sampling = field(default_factory=Sampling)
    split: Split = field(default_factory=SplitByShare)
    keys: Mapping[str, str] = field(default_factory=dict, hash=False)
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.purpose, Purpose):
            raise PurposeNotAllowedError(f"training set {self.name}: no purpose is given; say what it is used for")
        if not _NAME.match(self.name):
            raise DeclarationError(f"training set {self.name!r}: a name is lower case letters, digits and _")
        if self.horizon_ms <= 0:
            raise DeclarationError(f"training set {self.name}: a horizon of {self.horizon_ms} ms is none")
        if not self.labels:
            raise DeclarationError(f"training set {self.name}: it has no label; say what came of a row")
        if self.gap_ms < self.horizon_ms:
            raise DeclarationError(
                f"training set {self.name}: the gap of {self.gap_ms} ms between splits is shorter than the horizon of "
                f"{self.horizon_ms} ms, so that labels would reach into the next split; leave it out, or lengthen it"
            )
        self.spine.check()
        self.split.check(self.gap_ms)
        for label in self.labels:
            label.check(self.horizon_ms)
        self._check_sampling()
        if isinstance(self.spine, Every | PerEvent):
            self.selections(self.spine.columns)

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels."""
        return (self.label,) if isinstance(self.label, Label) else tuple(self.label)

    @property
    def gap_ms(self) -> int:
        """How long before a split nothing is taken."""
        return self.horizon_ms if self.split.gap_ms is None else self.split.gap_ms

    @property
    def instant(self) -> str:
        """The rows' column with their instants."""
        return self.spine.instant if isinstance(self.spine, FileRows | TableRows) else INSTANT

    @property
    def logs(self) -> tuple[tuple[Source, str], ...]:
        """(source, entity) of every log that rows, labels and candidates are read from."""
        found = [(label.source, label.by[0]) for label in self.labels]
        if isinstance(self.spine, Every | PerEvent):
            found.insert(0, (self.spine.source, self.spine.entity))
        candidates = self.sampling.negatives.candidates if self.sampling.negatives is not None else None
        if isinstance(candidates, SeenIn):
            found.append((candidates.source, candidates.entity))
        return tuple(dict.fromkeys(found))

    def selections(self, columns: Sequence[str]) -> list[Selection]:
        """The features for rows that have these columns.

        Raises:
            DeclarationError: a column that something is declared of is not there, or one is there already.
            SelectionError, UnknownGroupError, PurposeNotAllowedError: as `features.selection` does.
        """
        negatives = self.sampling.negatives
        needed = [self.instant, *self.spine.identity, *(column for label in self.labels for column in label.by)]
        for name in (*needed, *([negatives.column] if negatives else [])):
            if name not in columns:
                raise DeclarationError(
                    f"training set {self.name}: its rows have no column {name}; they have {', '.join(columns)}"
                )
        added = [label.name for label in self.labels] + [WEIGHT] + ([IS_DRAWN] if negatives else [])
        for place, name in enumerate(added):
            if name in columns or name in added[:place]:
                raise DeclarationError(f"training set {self.name}: two columns would be called {name}; rename one")
        selections = select(self.features, columns, GROUPS, self.keys)
        require_purpose(self.purpose, selections)
        return selections

    def _check_sampling(self) -> None:
        negatives, balance = self.sampling.negatives, self.sampling.balance
        if negatives is not None:
            negatives.check()
        if balance is None:
            return
        balance.check()
        if balance.label not in {label.name for label in self.labels}:
            raise DeclarationError(
                f"training set {self.name}: it is balanced by {balance.label}, which is none of its labels: "
                f"{', '.join(label.name for label in self.labels)}"
            )
