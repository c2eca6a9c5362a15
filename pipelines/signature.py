"""A model's plain signature as MLflow takes it."""

from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from models.task import Column, Signature


def mlflow_signature(signature: Signature) -> ModelSignature:
    """The same columns and parameters in MLflow's types."""
    parameters = [ParamSpec(name, _type_of(value), value) for name, value in signature.parameters.items()]
    return ModelSignature(
        inputs=Schema([_column(one) for one in signature.inputs]),
        outputs=Schema([_column(one) for one in signature.outputs]),
        params=ParamSchema(parameters) if parameters else None,  # type: ignore[arg-type]  # None is its default
    )


def _column(column: Column) -> ColSpec:
    kind = DataType[column.kind]
    return ColSpec(Array(kind) if column.many else kind, column.name, required=not column.optional)


def _type_of(value: int | float | str) -> DataType:
    if isinstance(value, bool):
        return DataType.boolean
    if isinstance(value, int):
        return DataType.integer
    return DataType.double if isinstance(value, float) else DataType.string
