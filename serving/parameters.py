"""Parameters that several endpoints take."""

from typing import Annotated

from pydantic import Field

# An id of 100 letters, whatever they are, is a key that every store takes.
Id = Annotated[str, Field(min_length=1, max_length=100, description="a plain id", examples=["profile-17"])]
Market = Annotated[
    str | None,
    Field(max_length=20, description="decides for a person whose consent is not known", examples=["DE"]),
]
