"""What every halting module offers.

Shapes: B batch, N sequence, D width, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor

PositionLosses: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Logits (B, N, C) or (B, C) → the loss of each target, and whether it counts, (B, N) or (B,)."""


class Stack(Protocol):
    """The layers of a model, all cycles one after another; each call runs what comes next."""

    def all(self, x: Tensor) -> Tensor:
        """All layers of all cycles, (B, N, D) → (B, N, D)."""

    def cycle(self, x: Tensor, active: Tensor | None) -> Tensor:
        """The next cycle; positions not ``active`` (B, N) keep their x in every layer."""

    def layer(self, x: Tensor, active: Tensor | None) -> Tensor:
        """The next layer, in the same manner."""

    def absorb_rest(self, x: Tensor) -> None:
        """Let the layers that are not run see the final ``x``, for tokens still to come."""

    def answer(self, x: Tensor) -> Tensor:
        """The logits of the model's own head, (B, N, C) or (B, C)."""


class Exits(Protocol):
    """What the exits of a model answer in training."""

    def loss(self, losses: PositionLosses) -> Tensor:
        """The training loss () of all exits together."""


class Halted(NamedTuple):
    """What came of the layers: states (B, N, D), losses by name, layers run for each position.

    layers: (B, N), or None: all.  logits: of the exits that were taken; None: they are still to be
    read from x.  exits: what training needs instead of the logits.
    """

    x: Tensor
    aux: dict[str, Tensor]
    layers: Tensor | None
    logits: Tensor | None = None
    exits: Exits | None = None
