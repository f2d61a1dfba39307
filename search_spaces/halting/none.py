"""None: every token takes all layers, ``repeats`` times."""

from __future__ import annotations

from typing import ClassVar, Literal

from search_spaces.cost import Cost
from search_spaces.halting.base import HaltingSlot, HaltingSpec


class NoHalting(HaltingSpec):
    """Every token takes the same number of layers."""

    title: ClassVar[str] = "None"
    complexity: ClassVar[str] = "O(1)"
    citation: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762"
    adaptive: ClassVar[bool] = False

    type: Literal["none"] = "none"

    def cost(self, batch: int, length: int, slot: HaltingSlot) -> Cost:
        """Nothing."""
        return Cost(0, 0, 0, 0, 0)

    def layers(self, slot: HaltingSlot) -> tuple[int, int]:
        """Always all."""
        return slot.runs, slot.runs
