"""Exits after every layer: what the specs that have them share."""

from __future__ import annotations

from typing import ClassVar

from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.halting.base import HaltingSlot, HaltingSpec
from search_spaces.norms import norm_parameters, norm_statistics


class ExitHalting(HaltingSpec):
    """A norm and a classifier after each layer; the last ones are the model's own."""

    adaptive: ClassVar[bool] = True
    exits: ClassVar[bool] = True

    def cost(self, batch: int, length: int, slot: HaltingSlot) -> Cost:
        """The exits before the last, each of which answers for all tokens."""
        before, tokens = slot.runs - 1, batch * length
        answers = batch if slot.pooled else tokens
        flops = 2 * answers * slot.width * slot.outputs
        # in training each exit keeps the statistics of its norm, what the classifier reads, the
        # logits and their softmax; a pooled one only the mean of what it reads
        kept = norm_statistics(slot.norm) * tokens + answers * (slot.width + 2 * slot.outputs)
        return Cost(
            parameters=before
            * (norm_parameters(slot.norm, slot.width) + slot.width * slot.outputs),
            flops=before * flops,
            flops_low=flops,
            live_bytes=FLOAT_BYTES * answers * (slot.outputs + 2),
            saved_bytes=FLOAT_BYTES * before * kept,
        )

    def layers(self, slot: HaltingSlot) -> tuple[int, int]:
        """All tokens may leave after the first layer."""
        return 1, slot.runs
