"""Whose values a batch makes anew: rows were taken from their logs, or nothing older of them may stay."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class Changed:
    """Keys that rows of a log were taken from, and the first instant of these rows."""

    keys: pa.Array
    since_ms: int


@dataclass
class Affected:
    """Whose values are to be made anew: by source and entity those that lost rows, and by entity the keys of people of
    whom nothing older may stay.
    """

    changed: dict[tuple[str, str], Changed] = field(default_factory=dict)
    forgotten: dict[str, pa.Array] = field(default_factory=dict)

    @property
    def is_nobody(self) -> bool:
        """Whether rows were only added."""
        return not self.changed and not self.forgotten

    @classmethod
    def joined(cls, parts: Sequence["Affected"]) -> "Affected":
        """Of all parts."""
        whole = cls()
        for part in parts:
            for where, more in part.changed.items():
                known = whole.changed.get(where, more)
                keys = pa.concat_arrays([known.keys, more.keys]).unique()
                whole.changed[where] = Changed(keys, min(known.since_ms, more.since_ms))
            for name, keys in part.forgotten.items():
                whole.forgotten[name] = pa.concat_arrays([whole.forgotten.get(name, keys), keys]).unique()
        return whole
