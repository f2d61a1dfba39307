"""Linformer: softmax(Q(EK)ᵀ)FV with keys and values projected from N to ``rank`` positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.attention.base import AttentionSpec, Decoding, Family
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain


class LinformerAttention(AttentionSpec):
    """Softmax(Q(EK)ᵀ)FV with keys and values projected from N to ``rank`` positions.

    sharing: "layer", E and F are those of a layer; "model", E = F is one for all layers of a model
    that have the same rank (section 4, layerwise sharing).
    """

    title: ClassVar[str] = "Linformer"
    family: ClassVar[Family] = "low-rank"
    complexity: ClassVar[str] = "O(N·k)"
    citation: ClassVar[str] = "Wang et al. 2020, arXiv:2006.04768"
    causal: ClassVar[bool] = False
    decoding: ClassVar[Decoding] = "none"

    type: Literal["linformer"] = "linformer"
    rank: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128, 256))] = 64

    sharing: Annotated[Literal["layer", "model"], Domain(("layer", "model"))] = "layer"

    @property
    def shared_name(self) -> str:
        """What the projection is called that a model's layers share."""
        return f"linformer_{self.rank}"

    def shared_parameters(self, length: int, width: int) -> Mapping[str, int]:
        """E = F, if it is the model's."""
        return {self.shared_name: self.rank * length} if self.sharing == "model" else {}

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Two projections of N positions, two of k; E and F are as long as the longest sequence."""
        tokens, short = batch * length, batch * self.rank
        distinct = 1 if self.sharing == "model" else 2
        parameters = 4 * width * width + distinct * self.rank * length
        # the input is shortened first and projected to keys and values afterwards
        flops = 4 * tokens * width * width + short * width * (2 * distinct * length + 4 * width)
        flops += 4 * tokens * self.rank * width
        dense, kept = tokens * width, short * width
        floats = 2 * dense + (2 + distinct) * kept
        live = floats
        if batch > 1:  # the products of several sequences are of transposed copies
            live = max(live, dense + (1 + 2 * distinct) * kept)
        copied = dense if batch > 1 else 0
        saved = floats + tokens * heads + copied
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * live,
            saved_bytes=FLOAT_BYTES * saved,
            # the gradients of output, queries, keys and values
            backward_bytes=FLOAT_BYTES * (saved + 2 * dense + 2 * kept),
        )
