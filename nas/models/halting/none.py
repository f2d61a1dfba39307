"""No halting: all layers for all positions.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from torch import Tensor

from nas.models.halting.base import Halted, Stack
from nas.models.mechanism import Mechanism
from search_spaces.halting.base import HaltingSlot
from search_spaces.halting.none import NoHalting


class Never(Mechanism, spec=NoHalting):
    """Runs every layer."""

    def __init__(self, spec: NoHalting, slot: HaltingSlot) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, stack: Stack, mask: Tensor | None) -> Halted:
        """(B, N, D) → (B, N, D) after all cycles."""
        return Halted(stack.all(x), {}, None)
