"""An answer of Feast's SDK as columns; its protobuf, one message a value, is only made when somebody asks for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from features.plain import python_values
from features.windows import Int64s


@dataclass(frozen=True)
class ViewAnswer:
    """The values of one view: `columns` as they are to be called, [n] each, of these types.

    `last_events_ms`: the last event that contributed to a row; `is_known`: whether there is one; `is_fresh`: whether
    it is within the view's TTL. [n] each.
    """

    view: str
    columns: Mapping[str, tuple[pa.Array, ValueType]]
    last_events_ms: Int64s
    is_known: np.ndarray[Any, np.dtype[np.bool_]]
    is_fresh: np.ndarray[Any, np.dtype[np.bool_]]

    def statuses(self, column: pa.Array) -> list[int]:
        """Feast's status of each value: it has four words, and its own stores use the first two."""
        has_value = np.asarray(column.is_valid())
        conditions = [~self.is_known, ~self.is_fresh, ~has_value]
        words = [FieldStatus.NOT_FOUND, FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.NULL_VALUE]
        found: list[int] = np.select(conditions, words, FieldStatus.PRESENT).tolist()
        return found

    def instants_ms(self) -> list[int]:
        """Of the last events; 0, which is Feast's null, where there is none."""
        instants: list[int] = np.where(self.is_known, self.last_events_ms, 0).tolist()
        return instants


class ColumnarResponse(OnlineResponse):
    """What `get_online_features` gives: the keys as they were asked for, then each view's features."""

    def __init__(
        self, keys: Mapping[str, Sequence[Any]], answers: Sequence[ViewAnswer], *, names_versions: bool = False
    ) -> None:
        """`names_versions`: the protobuf also lists the views, as Feast's versioning asks. Reel's have version 0."""
        self._keys, self._answers, self._names_versions = keys, answers, names_versions
        self._feature_types = {name: kind for one in answers for name, (_, kind) in one.columns.items()}

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        """Lists by column; with `column__ts`, the seconds of the last event that contributed, if asked for."""
        said: dict[str, Any] = {}
        for name, values in self._keys.items():
            said[name] = list(values)
            if include_event_timestamps:
                said[name + TIMESTAMP_POSTFIX] = [0] * len(values)
        for answer in self._answers:
            for name, (column, _) in answer.columns.items():
                said[name] = python_values(column)
                if include_event_timestamps:
                    said[name + TIMESTAMP_POSTFIX] = [at_ms // 1000 for at_ms in answer.instants_ms()]
        return said

    @cached_property
    def proto(self) -> GetOnlineFeaturesResponse:  # type: ignore[override]  # Feast's is made at once
        """As Feast's own feature server sends it."""
        response = GetOnlineFeaturesResponse()
        for name, values in self._keys.items():
            protos = python_values_to_proto_values(list(values), ValueType.STRING)
            present = [FieldStatus.PRESENT] * len(protos)
            _add(response, name, protos, present, [0] * len(protos))
        for answer in self._answers:
            instants = answer.instants_ms()
            for name, (column, kind) in answer.columns.items():
                protos = python_values_to_proto_values(python_values(column), kind)
                _add(response, name, protos, answer.statuses(column), instants)
            if self._names_versions:
                response.metadata.feature_view_metadata.add().name = answer.view
        return response


def _add(
    response: GetOnlineFeaturesResponse,
    name: str,
    values: Iterable[Value],
    statuses: Iterable[Any],
    instants_ms: Iterable[int],
) -> None:
    response.metadata.feature_names.val.append(name)
    vector = response.results.add(values=values, statuses=statuses)
    for at_ms in instants_ms:
        vector.event_timestamps.add(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
