"""Convolution: the branched convolutions of the Evolved Transformer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from search_spaces.cost import FLOAT_BYTES, Cost
from search_spaces.feedforward.base import FeedForwardSpec
from search_spaces.values import Domain

ENTRY_TAPS = 3
"""Taps of the narrow branch of encoders."""


class ConvolutionFeedForward(FeedForwardSpec):
    """Two branches, added, normalised, and convolved back; one block for each kind of slot.

    Causal slots, the decoder's: a separable convolution of ``kernel`` taps to ``ratio``/2 · D with
    ReLU beside one of ``kernel`` - 4 taps to D/2; then one of ``kernel`` - 4 taps to D.
    Encoders: a matrix to ``ratio`` · D with ReLU beside a convolution of 3 taps to D/2 with ReLU;
    then a separable one of ``kernel`` - 2 taps to D/2, which is added to that half of the stream.
    The defaults are the paper's figure 3: 11, 7 and 7 taps and 2·D; 9 taps and 4·D.
    """

    title: ClassVar[str] = "Convolution"
    complexity: ClassVar[str] = "O(N·(D² + k·D))"
    citation: ClassVar[str] = "So et al. 2019, arXiv:1901.11117"
    position_wise: ClassVar[bool] = False

    type: Literal["convolution"] = "convolution"
    kernel: Annotated[int, Field(ge=5, le=255), Domain((5, 7, 11))] = 11
    ratio: Annotated[float, Field(ge=1, le=16), Domain((2.0, 4.0))] = 4.0

    def inner(self, width: int, causal: bool) -> int:
        """Width of the wide branch."""
        return max(1, round(self.ratio * width / (2 if causal else 1)))

    def narrow(self, width: int) -> int:
        """Width of the narrow branch, at most that of the wide one."""
        return max(1, width // 2)

    def last_taps(self, causal: bool) -> int:
        """Taps of the convolution after the sum."""
        return self.kernel - (4 if causal else 2)

    def state_bytes(self, width: int) -> int:
        """The last inputs of both convolutions."""
        inner, last = self.inner(width, causal=True), self.last_taps(causal=True)
        return FLOAT_BYTES * (width * (self.kernel - 1) + inner * (last - 1))

    def cost(self, batch: int, length: int, width: int, causal: bool) -> Cost:
        """Matrices, and the taps of each channel."""
        return (
            self._decoder(batch, length, width) if causal else self._encoder(batch, length, width)
        )

    def _decoder(self, batch: int, length: int, width: int) -> Cost:
        inner, narrow = self.inner(width, causal=True), self.narrow(width)
        first, last, tokens = self.kernel, self.last_taps(causal=True), batch * length
        weights = width * (first + inner + last + narrow) + inner * (last + width)
        padded = batch * width * (length + first - 1)
        summed = batch * inner * (length + last - 1)
        # zeros before the first position, and what the positions leave to the next
        past = 2 * batch * (width * (first - 1) + inner * (last - 1))
        branches = padded + tokens * (width + inner + narrow)
        after = summed + tokens * (inner + width)
        live = past + max(branches, after, tokens * (2 * inner + narrow))
        # as kernels convolve the narrow branch, in a copy of their own order; and the sum
        convolving = past + max(padded + tokens * (inner + 3 * width), 2 * summed + tokens * inner)
        saved = padded + summed + tokens * (2 * width + 3 * inner + 2)
        # the gradient of the last sums, or that before and one of the matrix for each sequence
        back = max(summed, inner * (tokens + batch * width))
        return Cost(
            weights + 2 * inner,
            2 * tokens * weights,
            2 * tokens * weights,
            live_bytes=FLOAT_BYTES * live,
            saved_bytes=FLOAT_BYTES * saved,
            backward_bytes=FLOAT_BYTES * (saved + back),
            last_flops=2 * tokens * inner * width,
            live_scratch=FLOAT_BYTES * max(0, convolving - live),
            backward_scratch=FLOAT_BYTES * max(0, _copies(last) * summed - back),
        )

    def _encoder(self, batch: int, length: int, width: int) -> Cost:
        inner, narrow = self.inner(width, causal=False), self.narrow(width)
        last, tokens = self.last_taps(causal=False), batch * length
        weights = width * (inner + ENTRY_TAPS * narrow) + inner * (last + narrow)
        summed = batch * inner * (length + last - 1)
        after = summed + tokens * (inner + narrow)
        live = max(after, tokens * (2 * inner + 2 * narrow))
        convolving = 2 * summed + tokens * inner
        saved = summed + tokens * (3 * inner + narrow + 2)
        back = max(summed, inner * (tokens + batch * narrow)) + tokens * narrow
        return Cost(
            weights + 2 * inner,
            2 * tokens * weights,
            2 * tokens * weights,
            live_bytes=FLOAT_BYTES * live,
            saved_bytes=FLOAT_BYTES * saved,
            backward_bytes=FLOAT_BYTES * (saved + back),
            last_flops=2 * tokens * inner * narrow,
            live_scratch=FLOAT_BYTES * max(0, convolving - live),
            backward_scratch=FLOAT_BYTES * max(0, _copies(last) * summed - back),
        )


def _copies(taps: int) -> int:
    """Of the sum, its gradient among them, while a kernel goes back through so many taps.

    oneDNN's, which has another order of channels and another way for each number of taps.
    """
    if taps == 1:
        return 2
    return 4 if taps < 5 else 3
