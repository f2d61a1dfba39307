"""Depth-adaptive: where a token leaves is learned from where leaving would have cost least."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.halting.base import HaltingSlot
from search_spaces.halting.exits import ExitHalting
from search_spaces.values import Domain


class DepthAdaptive(ExitHalting):
    """A classifier after each layer, and a unit that says whether to leave: χ = sigmoid(w·h + b).

    Training runs all layers. Its loss is the mean of those of all exits, with equal weights, and
    the cross-entropy of q(n) = χ_n Π_{m<n} (1 - χ_m) to the oracle's exit: the one with the least
    loss when each layer costs ``penalty``, token by token (section 3.2, without smoothing).
    Otherwise a token leaves at the first layer with χ ≥ 1/2.
    """

    title: ClassVar[str] = "Depth-adaptive"
    complexity: ClassVar[str] = "O(N·D·C) per layer"
    citation: ClassVar[str] = "Elbayad et al. 2019, arXiv:1910.10073"

    type: Literal["depth_adaptive"] = "depth_adaptive"
    penalty: Annotated[float, Field(ge=0), Domain((0.01, 0.03, 0.1))] = 0.03

    def cost(self, batch: int, length: int, slot: HaltingSlot) -> Cost:
        """The exits, and the unit on normed states."""
        exits = super().cost(batch, length, slot)
        before, tokens = slot.runs - 1, batch * length
        answers = batch if slot.pooled else tokens
        # the states after the norm, which has no weights, its statistics, and the steps to log q
        kept = answers * (slot.width + 8) + 2 * tokens
        return replace(
            exits,
            parameters=exits.parameters + slot.width + 1,
            flops=exits.flops + 2 * before * answers * slot.width,
            flops_low=exits.flops_low + 2 * answers * slot.width,
            saved_bytes=exits.saved_bytes + FLOAT_BYTES * before * kept,
        )
