"""No halting: all cycles for all positions.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from torch import Tensor

from nas.models.halting.base import Cycle, Halted
from nas.models.mechanism import Mechanism
from search_spaces.halting.none import NoHalting


class Never(Mechanism, spec=NoHalting):
    """Runs every cycle."""

    def __init__(self, spec: NoHalting, *, d_model: int, repeats: int) -> None:
        super().__init__()
        self.spec = spec
        self.repeats = repeats

    def forward(self, x: Tensor, cycle: Cycle, mask: Tensor | None) -> Halted:
        """(B, N, D) → (B, N, D) after ``repeats`` cycles."""
        for _ in range(self.repeats):
            x = cycle(x, None)
        return Halted(x, {}, None)
