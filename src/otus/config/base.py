"""What all settings share: known keys only, no changes, the usual limits of numbers and names."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=40)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]

#: The label of what is neither target nor noise.
UNKNOWN = "unknown"


def listed(value: Any) -> Any:
    """Return a list as it is and any other value as the only one of a list."""
    return value if isinstance(value, list | tuple) else [value]


class Settings(BaseModel):
    """A mapping of known keys that never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)
