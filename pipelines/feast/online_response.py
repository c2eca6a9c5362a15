"""An answer of Feast's SDK as columns; its protobuf, one message a value, is only made when somebody asks for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType


@dataclass(frozen=True)
class ViewAnswer:
    """The values of one view: `columns` as they are to be called, [n] each, of these types.

    `ages_ms`: how long before `asked_ms` the last event was that contributed to a row, None where there is none; past
    `ttl_ms` there are no values. [n].
    """

    view: str
    columns: Mapping[str, tuple[list[Any], ValueType]]
    ages_ms: Sequence[int | None]
    asked_ms: int
    ttl_ms: int

    def statuses(self, column: Sequence[Any]) -> list[Any]:
        """Feast's status of each value: it has four words, and its own stores use the first two."""
        return [self._status(value, age_ms) for value, age_ms in zip(column, self.ages_ms, strict=True)]

    def instants_ms(self) -> list[int]:
        """Of the last events; 0, which is Feast's null, where there is none."""
        return [0 if age_ms is None else self.asked_ms - age_ms for age_ms in self.ages_ms]

    def _status(self, value: Any, age_ms: int | None) -> Any:
        if age_ms is None:
            return FieldStatus.NOT_FOUND
        if age_ms > self.ttl_ms:
            return FieldStatus.OUTSIDE_MAX_AGE
        return FieldStatus.NULL_VALUE if value is None else FieldStatus.PRESENT


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
                said[name] = list(column)
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
                protos = python_values_to_proto_values(column, kind)
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
