"""What a part costs, as plain arithmetic.

Letters: B batch, N sequence, H heads, D width, E head width (D / H).
FLOPs are multiply-adds of matrix products counted twice, as PyTorch's counter sees them under the
MATH attention back end: a causal product is not halved and padding is included.
Bytes are of fp32 tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BYTES = 4
INDEX_BYTES = 8
COMPLEX_BYTES = 8


@dataclass(frozen=True)
class Cost:
    """Costs of one part for one forward pass of a batch, and what training adds.

    parameters: trainable scalars.  flops: the worst case.  flops_low: the least that data lead to.
    live_bytes: most bytes alive at once inside the part in inference, beyond its input and weights,
    its output included.  saved_bytes: what it keeps for the backward pass in training, beyond its
    input and weights.  backward_bytes: most bytes alive at once in that pass, what it still keeps
    included, beyond its input, the gradient of its output and all that is the weights'; of halting
    it is not told.

    backward_extra: FLOPs of the backward pass beyond twice ``flops``: weights that it computes
    again; below 0 where a factor of a product has no gradient.
    choice_flops, choice_bytes: of discrete choices, which are kept where a part is computed again.
    last_flops: of a last product, which a checkpointed layer has no need to compute again.
    memory_bytes: what the part keeps of a segment for the next one.
    live_scratch, backward_scratch: what kernels hold on a CPU beyond the most that is alive.
    """

    parameters: int
    flops: int
    flops_low: int
    live_bytes: int
    saved_bytes: int
    backward_bytes: int = 0
    backward_extra: int = 0
    choice_flops: int = 0
    choice_bytes: int = 0
    last_flops: int = 0
    memory_bytes: int = 0
    live_scratch: int = 0
    backward_scratch: int = 0

    @property
    def training_flops(self) -> int:
        """Of the forward and the backward pass."""
        return 3 * self.flops + self.backward_extra

    @property
    def live(self) -> int:
        """Most bytes held in inference, tensors and scratch."""
        return self.live_bytes + self.live_scratch

    @property
    def backward(self) -> int:
        """Most bytes held in the backward pass, tensors and scratch."""
        return self.backward_bytes + self.backward_scratch

    @property
    def again_flops(self) -> int:
        """Of a second forward pass for the sake of the backward pass."""
        return self.flops - self.choice_flops
