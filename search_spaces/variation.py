"""New members of a space made from old ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from search_spaces.architecture import Architecture
from search_spaces.segments import members, origins
from search_spaces.values import Domain, Scalar

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace

NEIGHBOUR = 0.8
"""How often a number moves to the value next to it rather than to any other."""

MODEL = -1
"""In place of a layer or segment: a decision of the whole model."""

Place: TypeAlias = tuple[int, str]


def draw(rng: Random, legal: Sequence[Scalar]) -> Scalar:
    """Any of the values, each equally likely.

    Where there is one there is nothing to draw: a hyperparameter that a space comes to fix leaves
    its samples as they were.
    """
    return legal[int(rng.random() * len(legal))] if len(legal) > 1 else legal[0]


def mutant(
    space: SearchSpace, arch: Architecture, rng: Random, segments: int | None
) -> Architecture:
    """The architecture with one decision of the model or of one segment changed.

    Decisions that the change makes illegal take the nearest legal value, those that it brings in
    are drawn. The only architecture of its space is returned as it is.
    """
    trace = space.trace(arch)
    old = {name: value for name, value, _ in trace}
    segment = members(arch.depth, segments)
    held: dict[Place, list[Scalar]] = {}
    legal_at: dict[Place, tuple[Scalar, ...]] = {}
    for name, value, legal in trace:
        layer, what = _split(name)
        place = (MODEL if layer == MODEL else segment[layer], what)
        if len(legal) > 1:
            held.setdefault(place, []).append(value)
            legal_at[place] = legal
    if not held:
        return arch
    target = list(held)[int(rng.random() * len(held))]
    changed = _another(rng, legal_at[target], held[target])
    drawn: dict[Place, Scalar] = {}
    origin = origins(arch.depth, arch.depth, segments)

    def choose(name: str, legal: tuple[Scalar, ...]) -> Scalar:
        nonlocal segment, origin
        layer, what = _split(name)
        place, source = (MODEL, what), name
        if layer != MODEL:
            place, source = (segment[layer], what), f"layer.{origin[layer]}.{what}"
        answer = changed if place == target else old.get(source)
        if answer not in legal:
            answer = drawn.setdefault(place, _repaired(rng, legal, answer))
        if name == "depth":
            segment = members(int(answer), segments)
            origin = origins(arch.depth, int(answer), segments)
        return answer

    return space.walk(choose)


def cross(space: SearchSpace, a: Architecture, b: Architecture, rng: Random) -> Architecture:
    """A child that has each model-level decision, and each layer, of either parent.

    Layers are taken from the same relative depth. What is illegal in the child comes from the
    other parent, or takes the nearest legal value, or is drawn.
    """
    parents = [(space.decisions(parent), parent.depth) for parent in (a, b)]
    first: dict[Place, bool] = {}
    depth = 0

    def choose(name: str, legal: tuple[Scalar, ...]) -> Scalar:
        nonlocal depth
        layer, what = _split(name)
        place = (layer, what if layer == MODEL else "")
        if place not in first:
            first[place] = rng.random() < 0.5
        inherited: list[Scalar] = []
        for decisions, old_depth in parents if first[place] else parents[::-1]:
            source = name if layer == MODEL else f"layer.{layer * old_depth // depth}.{what}"
            if source in decisions:
                inherited.append(decisions[source])
        fit = [value for value in inherited if value in legal]
        answer = fit[0] if fit else _repaired(rng, legal, inherited[0] if inherited else None)
        if name == "depth":
            depth = int(answer)
        return answer

    return space.walk(choose)


@lru_cache(maxsize=2**14)
def _split(name: str) -> Place:
    if name.startswith("layer."):
        _, layer, what = name.split(".", 2)
        return int(layer), what
    return MODEL, name


def _another(rng: Random, legal: tuple[Scalar, ...], held: list[Scalar]) -> Scalar:
    """A legal value that not all of the place's layers hold yet."""
    now = draw(rng, held)
    others = [v for v in legal if v != now or len(set(held)) > 1]
    if Domain(legal).ordered and rng.random() < NEIGHBOUR:
        at = legal.index(now)
        others = [v for v in legal[max(at - 1, 0) : at + 2] if v in others]
    return draw(rng, others)


def _repaired(rng: Random, legal: tuple[Scalar, ...], lost: Scalar | None) -> Scalar:
    """In place of a value that is not legal any more the nearest, otherwise any."""
    if isinstance(lost, int | float) and Domain(legal).ordered:
        return min(legal, key=lambda v: abs(float(v) - lost))
    return draw(rng, legal)
