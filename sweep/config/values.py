"""What a value of a config may be: numbers within bounds, one or several of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_LARGEST = 2**31 - 1  # what an integer column of the table holds
PositiveInt = Annotated[int, Field(strict=True, gt=0, le=_LARGEST)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
ManyImages = Annotated[int, Field(strict=True, gt=0, lt=2**63)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Width = Annotated[float, Field(strict=True, gt=0, le=1000)]  # of a network, in multiples of the usual one
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Smoothing = Annotated[float, Field(strict=True, ge=0, lt=1)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
All = Literal["all"]
Native = Literal["native"]


def as_tuple(value: Any) -> Any:
    """Let a single value stand for a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


T = TypeVar("T")
Some = Annotated[tuple[T, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class Model(BaseModel):
    """Base of every part of a config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
