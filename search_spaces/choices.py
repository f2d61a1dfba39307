"""How the values of one decision are written: one value, a list of them, or a range.

``{min: 1, max: 4}`` counts by ``step`` (1 when left out, for whole numbers), ``{min: 16, max: 128,
factor: 2}`` multiplies. However written, they are kept as a tuple without repetitions, numbers in
ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from search_spaces.architecture import Depth, Heads, Norm, Repeats, Width
from search_spaces.attention.base import Position
from search_spaces.errors import Problem
from search_spaces.residual import RESIDUAL
from search_spaces.validation import refusal
from search_spaces.values import Domain, Scalar, Spec, Value

MAX_CHOICES = 1024
"""Most values of one decision."""

_LIMIT = 2**53
Number: TypeAlias = (
    Annotated[int, Field(strict=True, ge=-_LIMIT, le=_LIMIT)]
    | Annotated[float, Field(strict=True, ge=-_LIMIT, le=_LIMIT, allow_inf_nan=False)]
)


def refuse(message: str, pointer: str = "", allowed: tuple[str, ...] = ()) -> PydanticCustomError:
    """The error for a definition that cannot be used, to be raised while it is validated."""
    return refusal("invalid_space", Problem(pointer, message, allowed))


class Range(Value):
    """Numbers from ``min`` to at most ``max``, by a step or by a factor."""

    min: Number
    max: Number
    step: Number | None = None
    factor: Number | None = None

    @model_validator(mode="after")
    def _usable(self) -> Self:
        whole = isinstance(self.min, int) and isinstance(self.max, int)
        if self.max < self.min:
            raise refuse(f"max {self.max} is below min {self.min}", "/max", (f"≥ {self.min}",))
        if self.step is not None and self.factor is not None:
            raise refuse("a range has a step or a factor, not both", "/factor")
        if self.factor is not None and (self.factor <= 1 or self.min <= 0):
            raise refuse("a geometric range needs min > 0 and factor > 1", "/factor", ("> 1",))
        if self.factor is None and self.step is None and not whole:
            raise refuse("a range of fractions needs a step or a factor", "/step")
        if self.step is not None and self.step <= 0:
            raise refuse("the step must be positive", "/step", ("> 0",))
        if self._steps() >= MAX_CHOICES:
            raise refuse(f"the range has more than {MAX_CHOICES} values", "/max")
        return self

    def _steps(self) -> float:
        # the small surplus lets 0.1 … 0.3 by 0.1 reach its end in spite of rounding
        if self.factor is not None:
            return (math.log(self.max) - math.log(self.min)) / math.log(self.factor) + 1e-9
        return (self.max - self.min) / (self.step or 1) + 1e-9

    def values(self) -> tuple[int | float, ...]:
        """The numbers, ascending."""
        steps = range(int(self._steps()) + 1)
        if self.factor is not None:
            numbers = [self.min * self.factor**i for i in steps]
        else:
            numbers = [self.min + i * (self.step or 1) for i in steps]
        return tuple(self._tidied(number) for number in numbers)

    def _tidied(self, number: int | float) -> int | float:
        """Without the noise of rounding, and whole where it may be meant so."""
        if isinstance(number, int):
            return number
        number = float(f"{number:.12g}")
        return int(number) if isinstance(self.min, int) and number.is_integer() else number


def expand(written: Any) -> tuple[Any, ...]:
    """The values that a written domain means, not yet checked one by one."""
    if isinstance(written, Mapping):
        return Range.model_validate(written).values()
    if not isinstance(written, list | tuple):
        return (written,)
    if not written:
        raise refuse("at least one value is needed")
    if len(written) > MAX_CHOICES:
        raise refuse(f"more than {MAX_CHOICES} values")
    return tuple(written)


def canonical(values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """The values in canonical order; one that is listed twice is refused."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise refuse(f"{value} is listed twice", f"/{i}")
    return tuple(sorted(values)) if Domain(values).ordered else values


def written_schema(item: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of a domain whose single values have the schema ``item``."""
    forms: list[dict[str, Any]] = [
        dict(item),
        {
            "type": "array",
            "items": dict(item),
            "minItems": 1,
            "maxItems": MAX_CHOICES,
            "uniqueItems": True,
        },
    ]
    if item.get("type") in ("integer", "number"):
        number = {"type": item["type"]}
        forms.append(
            {
                "type": "object",
                "properties": dict.fromkeys(("min", "max", "step", "factor"), number),
                "required": ["min", "max"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": forms}


class _Written:
    """Marks a tuple field that may be written in any of the three ways."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        checked = core_schema.no_info_after_validator_function(canonical, handler(source))
        return core_schema.no_info_before_validator_function(expand, checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return written_schema(handler(schema)["items"])


def _a_residual(name: str) -> str:
    if name not in RESIDUAL:
        raise refuse(f"{name!r} is not one of the residual mechanisms", "", tuple(RESIDUAL))
    return name


_STRICT = Field(strict=True)
_WRITTEN = _Written()
Widths: TypeAlias = Annotated[tuple[Annotated[Width, _STRICT], ...], _WRITTEN]
Depths: TypeAlias = Annotated[tuple[Annotated[Depth, _STRICT], ...], _WRITTEN]
HeadCounts: TypeAlias = Annotated[tuple[Annotated[Heads, _STRICT], ...], _WRITTEN]
RepeatCounts: TypeAlias = Annotated[tuple[Annotated[Repeats, _STRICT], ...], _WRITTEN]
Positions: TypeAlias = Annotated[tuple[Position, ...], _WRITTEN]
Norms: TypeAlias = Annotated[tuple[Norm, ...], _WRITTEN]
Residuals: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(_a_residual)], ...], _WRITTEN]
Flags: TypeAlias = Annotated[tuple[Annotated[bool, _STRICT], ...], _WRITTEN]
Labels: TypeAlias = Annotated[tuple[str, ...], _WRITTEN]


class Offer(Value):
    """For each field of a spec the values to choose from; None: it is no decision."""

    model_config = ConfigDict(strict=True)


@lru_cache(maxsize=256)
def offered(spec: type[Spec]) -> type[Offer]:
    """The model of what a space may offer of a spec; what is left out has the spec's own domain."""
    domains = spec.hyperparameters()
    fields: dict[str, Any] = {}
    for name, info in spec.model_fields.items():
        if name != "type":
            value: Any = info.annotation
            if info.metadata:
                value = Annotated[(value, *info.metadata)]
            values: Any = Annotated[tuple[value, ...], _WRITTEN]
            fields[name] = (values, domains[name].values if name in domains else None)
    return create_model(f"{spec.__name__}Offer", __base__=Offer, **fields)
