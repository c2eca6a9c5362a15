import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LookUpRequest(_message.Message):
    __slots__ = ("group", "entity", "keys", "purpose", "market")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    group: str
    entity: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    market: str
    def __init__(self, group: _Optional[str] = ..., entity: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., market: _Optional[str] = ...) -> None: ...

class LookUpResponse(_message.Message):
    __slots__ = ("group", "entity", "purpose", "as_of", "degraded", "rows")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    group: str
    entity: str
    purpose: str
    as_of: _timestamp_pb2.Timestamp
    degraded: bool
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, group: _Optional[str] = ..., entity: _Optional[str] = ..., purpose: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., degraded: _Optional[bool] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("key", "found", "values", "age_ms", "reason")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: str
    found: bool
    values: _containers.MessageMap[str, _struct_pb2.Value]
    age_ms: int
    reason: str
    def __init__(self, key: _Optional[str] = ..., found: _Optional[bool] = ..., values: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., age_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
