"""Architectures as vectors of numbers, for models of their quality.

Sizes, and counts by place in the stack, say more than flat choices do: how much an encoding
matters is in White et al. 2020, arXiv:2007.04965.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from search_spaces.architecture import Architecture, Layer
from search_spaces.definition import SpaceDefinition
from search_spaces.halting.base import HaltingSlot
from search_spaces.values import Domain, Scalar, Spec

QUARTERS = 4
NOMINAL_LENGTH = 512
"""Sequence length at which parameters that depend on it are counted."""


@dataclass(frozen=True)
class _Hyperparameter:
    """How a mechanism's hyperparameter is described, averaged over the layers that have it."""

    field: str
    names: dict[Scalar | None, str]
    """One descriptor for numbers (under None), one for each label otherwise."""
    shift: float = 0.0

    def scale(self, value: float) -> float:
        return math.log2(value + self.shift)


class Descriptors:
    """The descriptors of a space: the same names, in the same order, for each of its members."""

    def __init__(self, space: SpaceDefinition) -> None:
        self._causal = space.causal
        self._absent = dict.fromkeys(
            ("log_parameters", "depth", "width", "repeats", "adaptive", "heads", "ratio"), 0.0
        )
        for name in ("position", "norm", "residual"):
            values = getattr(space, name)
            self._absent |= {f"{name}.{v}": 0.0 for v in values if len(values) > 1}
        for attention in space.attention:
            for quarter in range(1, QUARTERS + 1):
                self._absent[f"attention.{attention.type}.quarter_{quarter}"] = 0.0
        for feedforward in space.feedforward:
            self._absent[f"feedforward.{feedforward.type}.count"] = 0.0
        self._hyperparameters: dict[tuple[str, str], list[_Hyperparameter]] = {}
        for block, options in space.blocks():
            for option in options:
                self._hyperparameters[block, option.type] = [
                    self._described(f"{block}.{option.type}", field, values)
                    for field, values in option.hyperparameters.items()
                    if len(values) > 1  # what never varies tells nothing apart
                ]

    def _described(self, name: str, field: str, values: tuple[Scalar, ...]) -> _Hyperparameter:
        if not Domain(values).ordered:
            names: dict[Scalar | None, str] = {
                v: f"{name}.{field}_{v}" for v in values if len(values) > 1
            }
            self._absent |= dict.fromkeys(names.values(), 0.0)
            return _Hyperparameter(field, names)
        numbers = [float(v) for v in values]
        shift = 0.0 if min(numbers) > 0 else 1 - min(numbers)
        described = _Hyperparameter(field, {None: f"{name}.log2_{field}"}, shift)
        # where no layer has the mechanism, the middle of the domain: neither small nor large
        middle = sum(map(described.scale, numbers)) / len(numbers)
        self._absent[described.names[None]] = middle
        return described

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """The descriptors of a member of the space."""
        found = dict(self._absent)
        layers = arch.layers
        found["log_parameters"] = math.log(self._parameters(arch))
        found["depth"] = float(arch.depth)
        found["width"] = float(arch.width)
        found["repeats"] = float(arch.repeats)
        found["adaptive"] = float(arch.halting.adaptive)
        found["heads"] = float(sum(layer.heads for layer in layers))
        found["ratio"] = float(sum(getattr(layer.feedforward, "ratio", 0) for layer in layers))
        residual = f"residual.{arch.residual.type}"
        for name in (f"position.{arch.position}", f"norm.{arch.norm}", residual):
            if name in found:
                found[name] = 1.0
        for layer, shares in zip(layers, _quarters(arch.depth), strict=True):
            for quarter, share in shares:
                found[f"attention.{layer.attention.type}.quarter_{quarter}"] += share
            found[f"feedforward.{layer.feedforward.type}.count"] += 1
        self._average("attention", [layer.attention for layer in layers], found)
        self._average("feedforward", [layer.feedforward for layer in layers], found)
        self._average("halting", [arch.halting], found)
        return found

    def _average(self, block: str, specs: Sequence[Spec], found: dict[str, float]) -> None:
        for kind in {spec.type for spec in specs}:
            for hyperparameter in self._hyperparameters[block, kind]:
                values = [getattr(s, hyperparameter.field) for s in specs if s.type == kind]
                if None in hyperparameter.names:
                    mean = sum(map(hyperparameter.scale, values)) / len(values)
                    found[hyperparameter.names[None]] = mean
                else:
                    for value, name in hyperparameter.names.items():
                        found[name] = values.count(value) / len(values)

    def _parameters(self, arch: Architecture) -> int:
        slot = HaltingSlot(arch.width, arch.depth, arch.repeats, arch.norm)
        halting = arch.halting.cost(1, NOMINAL_LENGTH, slot).parameters
        return halting + sum(_parameters(la, arch.width, self._causal) for la in arch.layers)


@lru_cache(maxsize=2**14)
def _parameters(layer: Layer, width: int, causal: bool) -> int:
    """Trainable scalars of a layer's two blocks, norms and embeddings left out."""
    attention = layer.attention.cost(1, NOMINAL_LENGTH, width, layer.heads, causal)
    feedforward = layer.feedforward.cost(1, NOMINAL_LENGTH, width, causal)
    return attention.parameters + feedforward.parameters


@lru_cache(maxsize=128)
def _quarters(depth: int) -> tuple[tuple[tuple[int, float], ...], ...]:
    """For each layer the quarters of the stack that it lies in, with its share in each."""
    shares = []
    for i in range(depth):
        low, high = i * QUARTERS / depth, (i + 1) * QUARTERS / depth
        overlap = ((q, min(high, q) - max(low, q - 1)) for q in range(1, QUARTERS + 1))
        shares.append(tuple((q, o * depth / QUARTERS) for q, o in overlap if o > 1e-9))
    return tuple(shares)
