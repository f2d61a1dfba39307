"""The document that declares a search space: which choices there are and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from search_spaces.choices import (
    Depths,
    Flags,
    HeadCounts,
    Norms,
    Positions,
    RepeatCounts,
    Residuals,
    Widths,
)
from search_spaces.errors import InvalidSpace, Problem
from search_spaces.legality import Legality
from search_spaces.options import (
    AttentionOption,
    Conditions,
    FeedForwardOption,
    HaltingOption,
    Option,
)
from search_spaces.validation import problems_in, refusals
from search_spaces.values import Scalar, Value

ADAPTIVE_REPEATS = (2, 3, 4)
"""Most cycles of adaptive halting where a space does not say; without halting it is one cycle."""

T = TypeVar("T")
OneOrMore: TypeAlias = Annotated[
    tuple[T, ...],
    BeforeValidator(lambda w: w if isinstance(w, list | tuple) else (w,)),
    Field(min_length=1, max_length=64),
]


class Conditional(Value):
    """Models that are as ``when`` says must also be as ``require`` says."""

    when: Conditions
    require: Conditions


class SpaceDefinition(Value):
    """A search space as it is written in YAML or JSON.

    A domain is one value, a list of values, or a range (``{min, max, step}`` or ``{min, max,
    factor}``). Every value that is written must occur in some architecture of the space.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")] = "custom"
    version: Annotated[int, Field(ge=1, le=999_999)] = 1
    description: Annotated[str, Field(max_length=2000)] = ""
    causal: bool
    width: Widths
    depth: Depths
    heads: HeadCounts
    repeats: RepeatCounts | None = None
    """Cycles for halting options that list none of their own."""
    position: Positions = ("sinusoidal",)
    norm: Norms = ("layer_norm",)
    residual: Residuals = ("pre_norm",)
    checkpointing: Flags = (False,)
    attention: OneOrMore[AttentionOption]
    feedforward: OneOrMore[FeedForwardOption] = (FeedForwardOption(type="dense"),)
    halting: OneOrMore[HaltingOption] = (HaltingOption(type="none"),)
    conditionals: Annotated[tuple[Conditional, ...], Field(max_length=64)] = ()

    def repeats_of(self, option: HaltingOption) -> tuple[int, ...]:
        """The numbers of cycles that go with a halting option."""
        adaptive = option.spec.adaptive and not option.spec.exits
        if option.repeats is not None:
            return option.repeats
        if self.repeats is not None:
            return tuple(r for r in self.repeats if r > 1 or not adaptive)
        return ADAPTIVE_REPEATS if adaptive else (1,)

    def decides_repeats(self, option: HaltingOption) -> bool:
        """Whether the number of cycles is a decision under a halting option."""
        repeats = option.spec.adaptive and not option.spec.exits
        return repeats or option.repeats is not None or self.repeats is not None

    def conditions(self) -> Iterator[tuple[str, Conditions]]:
        """All conditions in it, each with its pointer."""
        for i, conditional in enumerate(self.conditionals):
            yield f"/conditionals/{i}/when", conditional.when
            yield f"/conditionals/{i}/require", conditional.require
        for block, options in self.blocks():
            for i, option in enumerate(options):
                if option.when is not None:
                    yield f"/{block}/{i}/when", option.when

    def blocks(self) -> Iterator[tuple[str, tuple[Option[Any], ...]]]:
        """The mechanisms on offer, by the block that they stand in."""
        yield "attention", self.attention
        yield "feedforward", self.feedforward
        yield "halting", self.halting

    @model_validator(mode="after")
    def _usable(self) -> Self:
        for check in (_unlike_options, _causal_options, _cycles, _known_conditions, _reachable):
            if found := list(check(self)):
                raise refusals("SpaceDefinition", "invalid_space", found)
        return self


def parse_definition(document: object) -> SpaceDefinition:
    """The definition that a document holds.

    Raises:
        InvalidSpace: with a pointer into the document for each problem.
    """
    try:
        return SpaceDefinition.model_validate(document)
    except ValidationError as error:
        raise InvalidSpace(problems_in(error, document)) from error


def read_definition(path: Path) -> SpaceDefinition:
    """The definition in a YAML (or JSON) file.

    Raises:
        InvalidSpace: the file cannot be read, or what it holds cannot be used.
    """
    import yaml  # a third of the package's import time, and needed for files alone

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSpace([Problem("", f"{path} cannot be read: {error}")]) from error
    return parse_definition(document)


def _unlike_options(space: SpaceDefinition) -> Iterator[Problem]:
    for block, options in space.blocks():
        types = [option.type for option in options]
        for i, name in enumerate(types):
            if name in types[:i]:
                yield Problem(f"/{block}/{i}/type", f"{name} is listed twice")


def _causal_options(space: SpaceDefinition) -> Iterator[Problem]:
    if space.causal:
        for block, options in space.blocks():
            for i, option in enumerate(options):
                if not option.spec.causal:
                    fit = tuple(n for n, spec in option.registry.items() if spec.causal)
                    message = f"{option.type} is for encoders and cannot be causal"
                    yield Problem(f"/{block}/{i}/type", message, fit)


def _cycles(space: SpaceDefinition) -> Iterator[Problem]:
    for i, option in enumerate(space.halting):
        if option.spec.adaptive and not option.spec.exits:
            message = f"{option.type} halting needs a cycle that can repeat"
            if option.repeats is not None and min(option.repeats) < 2:
                yield Problem(f"/halting/{i}/repeats", message, ("≥ 2",))
            elif not space.repeats_of(option):
                yield Problem("/repeats", message, ("≥ 2",))


def _known_conditions(space: SpaceDefinition) -> Iterator[Problem]:
    offered: dict[str, tuple[Scalar, ...]] = {
        "width": space.width,
        "halting": tuple(option.type for option in space.halting),
        "repeats": tuple(sorted({r for o in space.halting for r in space.repeats_of(o)})),
        "position": space.position,
        "norm": space.norm,
        "residual": space.residual,
        "checkpointing": space.checkpointing,
        "depth": space.depth,
    }
    for where, conditions in space.conditions():
        for name, values in conditions.items():
            for value in values:
                if value not in offered[name]:
                    allowed = tuple(map(str, offered[name]))
                    yield Problem(f"{where}/{name}", f"the space has no {name} {value}", allowed)


def _reachable(space: SpaceDefinition) -> Iterator[Problem]:
    return Legality(space).problems()
