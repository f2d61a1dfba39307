"""None: every token takes all layers, ``repeats`` times."""

from __future__ import annotations

from typing import ClassVar, Literal

from search_spaces.cost import Cost
from search_spaces.halting.base import HaltingSpec


class NoHalting(HaltingSpec):
    """Every token takes the same number of layers."""

    title: ClassVar[str] = "None"
    complexity: ClassVar[str] = "O(1)"
    citation: ClassVar[str] = "Vaswani et al. 2017, arXiv:1706.03762"
    adaptive: ClassVar[bool] = False

    type: Literal["none"] = "none"

    def cost(self, batch: int, length: int, width: int, repeats: int) -> Cost:
        """Nothing."""
        return Cost(0, 0, 0, 0, 0)

    def cycles(self, repeats: int) -> tuple[int, int]:
        """Always all."""
        return repeats, repeats
