"""Linformer: softmax(Q(EK)ᵀ)FV with keys and values projected from N to ``rank`` positions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import AttentionSpec, Family
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class LinformerAttention(AttentionSpec):
    """Softmax(Q(EK)ᵀ)FV with keys and values projected from N to ``rank`` positions."""

    title: ClassVar[str] = "Linformer"
    family: ClassVar[Family] = "low-rank"
    complexity: ClassVar[str] = "O(N·k)"
    citation: ClassVar[str] = "Wang et al. 2020, arXiv:2006.04768"
    causal: ClassVar[bool] = False
    decoding: ClassVar[Literal["cache", "state", "none"]] = "none"

    type: Literal["linformer"] = "linformer"
    rank: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        tokens = batch * length
        parameters = 4 * width * width + 2 * self.rank * length
        # keys and values are shortened first and projected afterwards
        flops = 4 * tokens * width * width + 4 * batch * self.rank * width * (length + width)
        flops += 4 * tokens * self.rank * width
        floats = tokens * (2 * width + heads) + 4 * batch * self.rank * width
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * floats,
            saved_bytes=FLOAT_BYTES * floats,
        )
