"""Linformer: softmax(Q(EK)ᵀ)FV with keys and values projected from N to ``rank`` positions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import AttentionSpec, Decoding, Family
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class LinformerAttention(AttentionSpec):
    """Softmax(Q(EK)ᵀ)FV with keys and values projected from N to ``rank`` positions."""

    title: ClassVar[str] = "Linformer"
    family: ClassVar[Family] = "low-rank"
    complexity: ClassVar[str] = "O(N·k)"
    citation: ClassVar[str] = "Wang et al. 2020, arXiv:2006.04768"
    causal: ClassVar[bool] = False
    decoding: ClassVar[Decoding] = "none"

    type: Literal["linformer"] = "linformer"
    rank: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Two projections of N positions, two of k; E and F are as long as the longest sequence."""
        tokens, short = batch * length, batch * self.rank
        parameters = 4 * width * width + 2 * self.rank * length
        # the input is shortened first and projected to keys and values afterwards
        flops = 4 * tokens * width * width + 4 * short * width * (length + width)
        flops += 4 * tokens * self.rank * width
        dense, kept = tokens * width, short * width
        floats = 2 * dense + 4 * kept
        live = floats
        if batch > 1:  # the products of several sequences are of transposed copies
            live = max(live, dense + 5 * kept)
        copied = dense if batch > 1 else 0
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * live,
            saved_bytes=FLOAT_BYTES * (floats + tokens * heads + copied),
        )
