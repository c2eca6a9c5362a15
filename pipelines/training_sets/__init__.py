"""Declared training sets (`features.training`), built on Ray, built again from their manifests, told to MLflow.

In the order of the way: `inputs` (what is read, as of which snapshot), `rows` (each step on a part), `labels`, `build`,
`built` (the folder and its manifest), `rebuild`, `mlflow_dataset`.
"""

from pipelines.training_sets.build import build
from pipelines.training_sets.built import BuiltTrainingSet
from pipelines.training_sets.rebuild import Rebuilt, rebuild

__all__ = ["BuiltTrainingSet", "Rebuilt", "build", "rebuild"]
