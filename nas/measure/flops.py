"""Counting the FLOPs that a call really does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(call: Callable[..., object], *inputs: object) -> int:
    """FLOPs of matrix products in ``call(*inputs)``, run without gradients.

    Under the MATH back end: the counter takes the fused CPU attention for free.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        call(*inputs)
    return int(counter.get_total_flops())
