"""What a Feast feature view of Reel reads: one group's values for one entity."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from features.declarations import CREATED, EVENT_TIME
from features.groups import group


class ReelSource(DataSource):
    """A declared group, for one of its entities; its values are wherever Reel keeps them."""

    def __init__(self, *, group: str, entity: str, **facts: Any) -> None:
        """`facts` are Feast's own: name, description, tags, owner."""
        self.group, self.entity = group, entity
        super().__init__(timestamp_field=EVENT_TIME, created_timestamp_column=CREATED, **facts)

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "ReelSource":
        """As `to_proto` wrote it."""
        said = json.loads(data_source.custom_options.configuration)
        return ReelSource(
            group=said["group"],
            entity=said["entity"],
            name=data_source.name,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        said = json.dumps({"group": self.group, "entity": self.entity}).encode()
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{type(self).__module__}.{type(self).__name__}",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=said),
            description=self.description,
            tags=self.tags,
            owner=self.owner,
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
        )

    def validate(self, config: RepoConfig) -> None:
        """Raise `UnknownGroupError` or `DeclarationError` unless the group is declared for the entity."""
        group(self.group).check_entity(self.entity)

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """From the text of an Arrow type."""
        convert: Callable[[str], ValueType] = pa_to_feast_value_type
        return convert

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """The columns of the group's values, as Arrow types."""
        return [(field.name, str(field.type)) for field in group(self.group).row_schema(self.entity)]

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """One that Feast does not know."""
        return DataSourceProto.CUSTOM_SOURCE

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ReelSource)
            and super().__eq__(other)
            and (self.group, self.entity) == (other.group, other.entity)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.group, self.entity))
