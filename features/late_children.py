"""Rows that turn out to be a child's after they were stored with ids (spec 8.5).

Nobody had described the profile, or it was taken for a grown-up's. They lose what leads to anybody, as they would have
at the door. With the ids goes the way to ask whether their people have withdrawn, so what these say by then is written
into the rows first.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.decision import CONSENT_COLUMNS, Registries, found_to_be_childrens, refused_by
from features.profiles import strip_kids
from features.pseudonyms import Pseudonymizer


@dataclass(frozen=True)
class LateChildren:
    """What is known of people at an instant, and how a child's token is made."""

    known: Registries
    pseudonymizer: Pseudonymizer
    at_ms: int

    def among(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Which rows are of a profile known by now to have been a child's, shape (n,)."""
        return found_to_be_childrens(rows, self.known, self.at_ms)

    def stripped(self, rows: pa.Table) -> pa.Table:
        """`rows`, all of them a child's, without ids; their consent as of now."""
        schema = rows.schema
        for purpose, column in CONSENT_COLUMNS.items():
            if column in schema.names:
                allowed = np.asarray(rows[column].fill_null(False)) & ~refused_by(rows, purpose, self.known, self.at_ms)
                rows = rows.set_column(schema.get_field_index(column), schema.field(column), pa.array(allowed))
        yes = np.ones(rows.num_rows, dtype=bool)
        rows = strip_kids(rows, yes, self.pseudonymizer).select(schema.names).cast(schema)
        return rows.set_column(schema.get_field_index("is_kids"), "is_kids", pa.array(yes))
