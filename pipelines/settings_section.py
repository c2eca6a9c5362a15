"""A section of the settings: what all of them have in common, and the kinds of values they are made of."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _of_project(path: Path) -> Path:
    return (PROJECT_ROOT / path).resolve()


ProjectPath = Annotated[Path, AfterValidator(_of_project)]
Seconds = Annotated[float, Field(gt=0)]
Hours = Annotated[float, Field(ge=0)]
Days = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Hour = Annotated[int, Field(ge=0, le=24)]


class Section(BaseModel):
    """A group of settings. What may hold a password is left out of representations and messages (`repr=False`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
