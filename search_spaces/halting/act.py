"""ACT: adaptive computation time per position."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.halting.base import HaltingSlot, HaltingSpec
from search_spaces.values import Domain


class AdaptiveComputationTime(HaltingSpec):
    """Each position runs the shared layers until its halting probabilities sum to 1 - ``epsilon``.

    N(t) = min{n : Σ h ≥ 1 - ε}, at most ``repeats``; the state is the mean weighted by h, the last
    weight being the remainder; the loss gains ``ponder_cost`` · mean(N + R).
    """

    title: ClassVar[str] = "Adaptive computation time"
    complexity: ClassVar[str] = "O(N·D) per cycle"
    citation: ClassVar[str] = (
        "Graves 2016, arXiv:1603.08983; Dehghani et al. 2018, arXiv:1807.03819"
    )
    adaptive: ClassVar[bool] = True

    type: Literal["act"] = "act"
    ponder_cost: Annotated[float, Field(ge=0), Domain((0.001, 0.01))] = 0.01
    epsilon: Annotated[float, Field(gt=0, lt=0.5)] = 0.01

    def cost(self, batch: int, length: int, slot: HaltingSlot) -> Cost:
        """The halting unit and the running mean of states."""
        tokens, width, repeats = batch * length, slot.width, slot.repeats
        return Cost(
            parameters=width + 1,
            flops=2 * tokens * width * repeats,
            flops_low=2 * tokens * width,
            live_bytes=FLOAT_BYTES * tokens * (width + 8),
            # of each cycle the normed state, and per position: sums, weights, comparisons
            saved_bytes=FLOAT_BYTES * tokens * (width + 8) * repeats,
        )

    def layers(self, slot: HaltingSlot) -> tuple[int, int]:
        """All tokens may halt after the first cycle."""
        return slot.depth, slot.runs
