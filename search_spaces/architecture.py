"""The genotype of one Transformer: an immutable value, its canonical JSON and its validity.

An architecture is a cycle of ``layers`` run ``repeats`` times with the same weights: a plain
Transformer has repeats = 1, ALBERT one layer and many repeats, a Universal Transformer the same
with adaptive halting. Its depth, the number of distinct layers, is ``len(layers)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Self, TypeAlias, get_args

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from search_spaces.attention import AnyAttention
from search_spaces.attention.base import Position
from search_spaces.errors import InvalidArchitecture, Problem
from search_spaces.feedforward import AnyFeedForward
from search_spaces.halting import AnyHalting
from search_spaces.halting.none import NoHalting
from search_spaces.norms import Norm as Norm
from search_spaces.residual import AnyResidual
from search_spaces.residual.pre_norm import PreNorm
from search_spaces.values import Value, canonical_json, fingerprint

POSITIONS: tuple[Position, ...] = get_args(Position)
NORMS: tuple[Norm, ...] = get_args(Norm)
Width: TypeAlias = Annotated[int, Field(ge=8, le=8192)]
Depth: TypeAlias = Annotated[int, Field(ge=1, le=128)]
Heads: TypeAlias = Annotated[int, Field(ge=1, le=64)]
Repeats: TypeAlias = Annotated[int, Field(ge=1, le=64)]


class Layer(Value):
    """One layer: token mixing with ``heads`` heads, then a position-wise block."""

    attention: AnyAttention
    feedforward: AnyFeedForward
    heads: Heads = 4


class Architecture(Value):
    """One candidate. Construction refuses combinations that no slot can take (see ``VALIDITY``)."""

    width: Width
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=128)]
    repeats: Repeats = 1
    position: Position = "rotary"
    norm: Norm = "layer_norm"
    residual: AnyResidual = PreNorm()
    halting: AnyHalting = NoHalting()
    checkpointing: bool = False
    """Whether training keeps only the input of each layer and computes the rest again."""

    @property
    def depth(self) -> int:
        """Distinct layers in the cycle."""
        return len(self.layers)

    @property
    def homogeneous(self) -> bool:
        """Whether every layer is the same."""
        return len(set(self.layers)) == 1

    def canonical_json(self) -> str:
        """Sorted, without blanks and defaults: equal text for equal architectures."""
        return canonical_json(self)

    def fingerprint(self) -> str:
        """Hex digest of the canonical JSON: the identity of an architecture everywhere."""
        return fingerprint(self)

    @model_validator(mode="after")
    def _valid_anywhere(self) -> Self:
        for problem in problems(self):
            raise PydanticCustomError(
                "invalid_architecture",
                "{message}",
                {
                    "message": problem.message,
                    "pointer": problem.pointer,
                    "allowed": problem.allowed,
                },
            )
        return self


def _heads_divide_width(arch: Architecture, causal: bool) -> Iterator[Problem]:
    for i, layer in enumerate(arch.layers):
        if arch.width % layer.heads:
            divisors = tuple(str(h) for h in range(1, 65) if arch.width % h == 0)
            yield Problem(
                f"/layers/{i}/heads",
                f"{layer.heads} heads do not divide width {arch.width}",
                divisors,
            )


def _positions_taken(arch: Architecture, causal: bool) -> Iterator[Problem]:
    for i, layer in enumerate(arch.layers):
        allowed = layer.attention.positions
        if arch.position not in allowed:
            yield Problem(
                "/position",
                f"{layer.attention.type} (layer {i}) cannot take {arch.position} positions",
                tuple(p for p in POSITIONS if p in allowed),
            )
        elif arch.position == "rotary" and (arch.width // layer.heads) % 2:
            yield Problem(
                f"/layers/{i}/heads",
                f"rotary positions need an even head width, not {arch.width} / {layer.heads}",
            )


def _groups_divide_heads(arch: Architecture, causal: bool) -> Iterator[Problem]:
    for i, layer in enumerate(arch.layers):
        group: int = getattr(layer.attention, "queries_per_key", 1)
        if layer.heads % group:
            divisors = tuple(str(g) for g in range(1, layer.heads + 1) if layer.heads % g == 0)
            yield Problem(
                f"/layers/{i}/attention/queries_per_key",
                f"groups of {group} do not divide {layer.heads} heads",
                divisors,
            )


def _reversible_alone(arch: Architecture, causal: bool) -> Iterator[Problem]:
    if arch.residual.type != "reversible":
        return
    if arch.halting.adaptive:
        message = f"{arch.halting.type} halting freezes states, which cannot be reversed"
        yield Problem("/halting/type", message, ("none",))
    if arch.checkpointing:
        message = "reversible layers keep no activations that checkpointing could save"
        yield Problem("/checkpointing", message, ("false",))


def _halting_has_a_choice(arch: Architecture, causal: bool) -> Iterator[Problem]:
    halting = arch.halting
    if not halting.fits(arch.depth, arch.repeats):
        needs = "two layers, or a cycle" if halting.exits else "a cycle"
        message = f"{halting.type} halting needs {needs} that can repeat"
        yield Problem("/repeats", message, ("2 or more",))


def _causal_slots(arch: Architecture, causal: bool) -> Iterator[Problem]:
    for i, layer in enumerate(arch.layers):
        for block, spec in (("attention", layer.attention), ("feedforward", layer.feedforward)):
            if causal and not spec.causal:
                yield Problem(
                    f"/layers/{i}/{block}/type", f"{spec.type} is for encoders and cannot be causal"
                )


VALIDITY: tuple[Callable[[Architecture, bool], Iterator[Problem]], ...] = (
    _heads_divide_width,
    _groups_divide_heads,
    _positions_taken,
    _halting_has_a_choice,
    _reversible_alone,
    _causal_slots,
)
"""Every rule on combinations; each yields the problems it finds in (architecture, causal)."""


def problems(arch: Architecture, *, causal: bool = False) -> list[Problem]:
    """All that the validity table says against this architecture in a slot of that kind."""
    return [problem for rule in VALIDITY for problem in rule(arch, causal)]


def check(arch: Architecture, *, causal: bool) -> None:
    """Refuse an architecture that cannot stand in a slot of that kind.

    Raises:
        InvalidArchitecture: with a pointer for each problem.
    """
    if found := problems(arch, causal=causal):
        raise InvalidArchitecture(found)
