"""What all settings share: known keys only, no changes, the usual limits of numbers and names."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=40)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]

#: The label of what is neither target nor noise.
UNKNOWN = "unknown"


class Settings(BaseModel):
    """A mapping of known keys that never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)
