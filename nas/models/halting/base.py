"""What every halting module offers.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Cycle(Protocol):
    """All layers, once; each call is the next cycle."""

    def __call__(self, x: Tensor, active: Tensor | None) -> Tensor:
        """(B, N, D) → (B, N, D); positions not ``active`` (B, N) keep their x in every layer."""

    def absorb_rest(self, x: Tensor) -> None:
        """Let the cycles that are not run see the final ``x``, for tokens still to come."""


class Halted(NamedTuple):
    """What came of the cycles: states (B, N, D), losses by name, cycles run for each position."""

    x: Tensor
    aux: dict[str, Tensor]
    cycles: Tensor | None
    """(B, N), or None: ``repeats`` for all."""
