"""Who may see what: roles, the tables and the columns that each may see (spec 11.3), and views that show no more.

`configs/access.yaml` says which kinds of columns a role sees of which layer; `privacy.classification` says of what kind
a column is. What nobody has classified is seen by nobody. Which rows are seen is the decision's (`features.decision`):
those of people who allow the role's purpose.

Reel enforces no access: it has no users of its own. It gives the mapping, views in SQL, and a reading that is audited.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from features.decision import CONSENT_COLUMNS, required_consents
from features.names import nearest
from features.purposes import Purpose
from pipelines.contract.events import load_contract
from pipelines.errors import UsageError
from pipelines.privacy.classification import Columns, Kind, classified
from pipelines.settings import Settings

ALL = "all"
LAYERS = ("bronze", "silver", "gold", "features", "quarantine", "quality", "privacy")
# Their rows were decided on when they were built.
DECIDED_LAYERS = frozenset({"features"})
_ASKED = {"user_id", "is_kids", *CONSENT_COLUMNS.values()}
_PEOPLE = {"user_id", "profile_id"}


class AccessError(UsageError):
    """The file of roles is wrong, or somebody is asked for whom it does not know, or what a role may not see."""


class Role(BaseModel):
    """One role of `configs/access.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = Field(description="who that is")
    rows_for: Literal["all"] | Purpose = Field(description="what people must have allowed; all: every row")
    reads: dict[str, tuple[Kind, ...]] = Field(description="layer or table: the kinds of columns that are seen")

    @property
    def purpose(self) -> Purpose | None:
        """What people must have allowed for their rows to be seen; None for every row."""
        return None if self.rows_for == ALL else Purpose(self.rows_for)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: dict[str, Role]


@dataclass(frozen=True)
class Access:
    """The roles, and every table that is classified."""

    roles: Mapping[str, Role]
    tables: Mapping[str, Columns]

    @classmethod
    def of(cls, settings: Settings) -> "Access":
        """As configured. Raises AccessError."""
        tables = classified(load_contract(settings.schemas))
        path = settings.privacy.access_file
        roles = _read(path).roles
        for name, role in roles.items():
            unknown = next((one for one in role.reads if one not in LAYERS and one not in tables), None)
            if unknown is not None:
                close = nearest(unknown, [*LAYERS, *tables])
                raise AccessError(f"{path}: {name} reads {unknown!r}, which is no layer or table; nearest is {close}")
        return cls(roles, tables)

    def role(self, name: str) -> Role:
        """The role called `name`. Raises AccessError with the nearest."""
        if name not in self.roles:
            raise AccessError(f"no role {name!r}; nearest is {nearest(name, self.roles)} (`reel privacy access`)")
        return self.roles[name]

    def seen(self, role: str, table: str, stored: Sequence[str] | None = None) -> list[str]:
        """The columns of `table` that `role` sees, in the order of `stored`, else of the declaration; often none."""
        one, kinds = self.role(role), self.tables.get(table, {})
        layer = table.partition(".")[0]
        granted = one.reads.get(table, one.reads.get(layer, ()))
        if one.purpose is not None and layer not in DECIDED_LAYERS and kinds.keys() & _PEOPLE and not asks(kinds):
            return []  # it holds people's rows, and nothing in them says what they allow
        return [name for name in (stored or kinds) if kinds.get(name) in granted]

    def seen_by(self, role: str) -> dict[str, list[str]]:
        """Every classified table that `role` sees something of."""
        found = {table: self.seen(role, table) for table in sorted(self.tables)}
        return {table: columns for table, columns in found.items() if columns}

    def require(self, role: str, table: str, stored: Sequence[str]) -> list[str]:
        """As `seen`; raises AccessError where that is nothing."""
        columns = self.seen(role, table, stored)
        if columns:
            return columns
        unknown = " (nobody has classified it: pipelines/privacy/classification.py)" if table not in self.tables else ""
        raise AccessError(f"{role} may see nothing of {table}{unknown}; `reel privacy access {role}` lists what it may")

    def views(self, roles: Sequence[str], stored: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """SQL statements that make a schema for each role, and in it a view of each table that is `stored`.

        A view is called as its table, with _ for the dot.
        """
        for role in roles:
            purpose = self.role(role).purpose
            yield f"CREATE SCHEMA IF NOT EXISTS {_quoted(role)};"
            for table, columns in stored.items():
                if names := self.seen(role, table, columns):
                    shown = ", ".join(f"t.{_quoted(name)}" for name in names)
                    rows = _rows_of(purpose) if purpose is not None and asks(columns) else ""
                    view = f"{_quoted(role)}.{_quoted(table.replace('.', '_'))}"
                    yield f"CREATE OR REPLACE VIEW {view} AS SELECT {shown} FROM {_table(table)} AS t{rows};"


def asks(columns: Sequence[str] | Columns) -> bool:
    """Whether a table of such columns has what the decision asks of rows."""
    return set(columns) >= _ASKED


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AccessError(f"{path}: {where}: {first['msg'].lower()}; received {first['input']!r}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AccessError(f"privacy.access_file: {path} cannot be read: {' '.join(str(error).split())}") from None


def _rows_of(purpose: Purpose) -> str:
    """The decision on rows in SQL: nobody's, and those of adults who allowed it then and refuse it not since."""
    needs = required_consents(purpose)
    allowed = " AND ".join(f"coalesce(t.{_quoted(CONSENT_COLUMNS[one])}, FALSE)" for one in needs)
    allows = " AND ".join(f"r.{_quoted(f'allows_{one}')}" for one in needs)
    refused = _latest("privacy.consents", "user_id", f"NOT ({allows})")
    kids = _latest("privacy.profiles", "profile_id", "r.is_kids")
    return (
        " WHERE (coalesce(t.source, '') <> 'CLIENT' AND t.user_id IS NULL AND t.profile_id IS NULL"
        " AND NOT coalesce(t.is_kids, FALSE))"
        f" OR (NOT coalesce(t.is_kids, TRUE) AND {allowed}"
        f" AND coalesce(t.user_id, '') NOT IN ({refused}) AND coalesce(t.profile_id, '') NOT IN ({kids}))"
    )


def _latest(table: str, key: str, condition: str) -> str:
    """The keys of which the latest that was said fulfils a condition."""
    newest = f"SELECT {key}, max(event_timestamp) AS at FROM {_table(table)} GROUP BY {key}"
    joined = f"{_table(table)} AS r JOIN ({newest}) AS l ON r.{key} = l.{key} AND r.event_timestamp = l.at"
    return f"SELECT r.{key} FROM {joined} WHERE {condition}"


def _table(name: str) -> str:
    return ".".join(map(_quoted, name.split(".")))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
