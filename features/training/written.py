"""A declaration as JSON and back, for the manifest of a training set: it can be built again where nobody has its code.

A dataclass is an object with its name under `is`; a source is written by its name, or as the events it is made of.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from features import aggregates
from features.errors import DeclarationError
from features.filters import Is
from features.purposes import Purpose
from features.source import Source
from features.sources import SOURCES, source
from features.training.candidates import Catalogue, SeenIn
from features.training.declaration import TrainingSet
from features.training.events import Events, events_of
from features.training.labels import Happened, Label
from features.training.sampling import Balance, Negatives, Sampling
from features.training.spine import Every, FileRows, PerEvent, TableRows
from features.training.splits import SplitAt, SplitByShare

_AGGREGATES = [getattr(aggregates, name) for name in aggregates.__all__]
_WORDS: dict[str, type] = {
    word.__name__: word
    for word in (
        TrainingSet, Every, PerEvent, FileRows, TableRows, Label, Happened, Sampling, Negatives, Balance, Catalogue,
        SeenIn, SplitAt, SplitByShare, Is, *_AGGREGATES,
    )
}  # fmt: skip


def as_json(value: Any) -> Any:
    """The declaration, or a part of it, as JSON types.

    Raises:
        DeclarationError: it has a part that could not be read back.
    """
    if isinstance(value, Source):
        return _source_as_json(value)
    if isinstance(value, Purpose):
        return {"is": "Purpose", "value": str(value)}
    if is_dataclass(value) and type(value).__name__ in _WORDS:
        return {"is": type(value).__name__} | {one.name: as_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {"is": "Mapping", "pairs": [[as_json(key), as_json(one)] for key, one in value.items()]}
    if isinstance(value, tuple | list):
        return [as_json(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DeclarationError(f"{value!r} cannot be written into a manifest; declare it in the vocabulary")


def from_json(written: Any) -> Any:
    """What `as_json` wrote.

    Raises:
        DeclarationError: a word that this version of Reel does not know, or with other fields.
        UnknownSourceError: a source that it does not know.
    """
    if isinstance(written, list):
        return tuple(from_json(one) for one in written)
    if not isinstance(written, dict):
        return written
    word = written.get("is")
    parts = {name: from_json(value) for name, value in written.items() if name != "is"}
    if word == "Source":
        return source(parts["name"])
    if word == "Events":
        return events_of(**parts)
    if word == "Purpose":
        return Purpose(parts["value"])
    if word == "Mapping":
        return dict(parts["pairs"])
    if word not in _WORDS:
        raise DeclarationError(f"the manifest speaks of {word!r}, which this version of Reel does not know")
    try:
        return _WORDS[word](**parts)
    except TypeError as error:
        raise DeclarationError(f"the manifest's {word} is of another version of Reel: {error}") from None


def _source_as_json(one: Source) -> dict[str, Any]:
    if any(one is known or one == known for known in SOURCES):
        return {"is": "Source", "name": one.name}
    if isinstance(one.make, Events):
        made = one.make
        return {
            "is": "Events", "name": one.name, "table": made.table, "events": list(made.names),
            "texts": list(made.texts), "whole": list(made.whole), "flags": list(made.flags),
        }  # fmt: skip
    raise DeclarationError(
        f"source {one.name} is neither of `features.sources` nor made by events_of, so that a manifest could not say "
        "what it is; declare it there"
    )
