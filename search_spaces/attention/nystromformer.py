"""Nyströmformer: softmax attention through ``landmarks`` mean queries and keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from search_spaces.attention.base import ADDED_POSITIONS, AttentionSpec, Decoding, Family, Position
from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.values import Domain

BLOCK = 64
"""Positions whose convolution is done together."""


class Window(NamedTuple):
    """Positions to convolve, those near enough, and both as rows and columns of a whole band."""

    own: slice
    near: slice
    rows: slice
    columns: slice


def windows(length: int, kernel: int) -> Iterator[Window]:
    """Cut N positions into blocks, each with the neighbours that a kernel of K values reaches."""
    reach = kernel // 2
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        first, last = max(0, start - reach), min(length, stop + reach)
        offset = start - reach
        yield Window(
            slice(start, stop),
            slice(first, last),
            slice(0, stop - start),
            slice(first - offset, last - offset),
        )


class NystromformerAttention(AttentionSpec):
    """Softmax(QK̃ᵀ)·pinv(softmax(Q̃K̃ᵀ))·softmax(Q̃Kᵀ)V with means of segments as landmarks.

    The pseudo-inverse takes ``iterations`` steps; a convolution of ``kernel`` values along the
    sequence (0: none), one for each head, is added.
    """

    title: ClassVar[str] = "Nyströmformer"
    family: ClassVar[Family] = "low-rank"
    complexity: ClassVar[str] = "O(N·m + m³)"
    citation: ClassVar[str] = "Xiong et al. 2021, arXiv:2102.03902"
    causal: ClassVar[bool] = False
    decoding: ClassVar[Decoding] = "none"
    positions: ClassVar[frozenset[Position]] = ADDED_POSITIONS | {"rotary"}

    type: Literal["nystromformer"] = "nystromformer"
    landmarks: Annotated[int, Field(ge=1), Domain((16, 32, 64, 128))] = 64
    iterations: Annotated[int, Field(ge=1), Domain((4, 6, 8))] = 6
    kernel: Annotated[int, Field(ge=0), Domain((0, 9, 33, 65))] = 33

    @field_validator("kernel")
    @classmethod
    def _has_a_middle(cls, kernel: int) -> int:
        if kernel and kernel % 2 == 0:
            raise ValueError(f"a kernel has an odd number of values, or none (0), not {kernel}")
        return kernel

    @property
    def widens(self) -> bool:
        """The inverse, which magnifies rounding and takes most of the memory."""
        return True

    def cost(self, batch: int, length: int, width: int, heads: int, causal: bool) -> Cost:
        """Four projections, N·m weights twice, the iterated inverse, the convolution."""
        m = min(self.landmarks, length)
        dense, short, square = batch * length * width, batch * m * width, batch * heads * m * m
        parameters = 4 * width * width + self.kernel * heads
        flops = 8 * dense * width + 8 * dense * m
        # Q̃K̃ᵀ, the inverse times means of values, and four products in each iteration
        flops += 4 * short * m + 8 * self.iterations * square * m
        band = back = 0
        if self.kernel:  # products with a band of the kernel's copies
            near = sum(
                (w.own.stop - w.own.start) * (w.near.stop - w.near.start)
                for w in windows(length, self.kernel)
            )
            flops += 2 * batch * width * near
            band = batch * heads * BLOCK * (BLOCK + self.kernel - 1)
            back = 3 * band  # the band, its gradient, and what a block adds to that
            band += 2 * batch * width * min(BLOCK, length)
            if batch > 1:  # blocks of several sequences are copied
                reached = min(BLOCK + self.kernel - 1, length)
                band += batch * width * (min(BLOCK, length) + reached)
        sums, landmark_sums = batch * heads * length, batch * heads * m  # of the fused softmax
        inverting = 5 * square + landmark_sums
        mixing = dense + sums + (dense + band if self.kernel else 0)
        saved = 4 * dense + 4 * short + (self.iterations + 2) * square + sums + landmark_sums
        saved += dense if self.kernel else 0
        return Cost(
            parameters,
            flops,
            flops,
            live_bytes=FLOAT_BYTES * (3 * dense + 3 * short + max(inverting, mixing)),
            saved_bytes=FLOAT_BYTES * saved,
            backward_bytes=FLOAT_BYTES * (saved + max(2 * dense + back, 12 * square + 2 * short)),
            # three of an iteration's four products again
            backward_extra=6 * self.iterations * square * m,
        )
