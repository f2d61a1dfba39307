"""What a part costs, as plain arithmetic.

Letters: B batch, N sequence, H heads, D width, E head width (D / H).
FLOPs are multiply-adds of matrix products counted twice, as PyTorch's counter sees them under the
MATH attention back end: a causal product is not halved and padding is included.
Bytes are of fp32 tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Costs of one part for one forward pass of a batch.

    parameters: trainable scalars.  flops: the worst case.  flops_low: the least that data lead to.
    live_bytes: most bytes alive at once inside the part in inference, beyond its input and weights,
    its output included.  saved_bytes: what it keeps for the backward pass in training, beyond its
    input and weights.
    """

    parameters: int
    flops: int
    flops_low: int
    live_bytes: int
    saved_bytes: int
