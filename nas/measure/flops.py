"""Counting the FLOPs that a call really does.

Under the MATH back end: the counter takes the fused CPU attention for free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from torch.utils.module_tracker import ModuleTracker


def count_flops(call: Callable[..., object], *inputs: object) -> int:
    """FLOPs of matrix products in ``call(*inputs)``, run without gradients."""
    with torch.no_grad():
        return _counted(lambda: call(*inputs))


def count_training_flops(loss: Callable[[], Tensor]) -> int:
    """FLOPs of matrix products in computing ``loss()`` and its gradients."""
    return _counted(lambda: loss().backward())  # type: ignore[no-untyped-call]


def _counted(call: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False, custom_mapping=UNKNOWN)
    counter.mod_tracker = _NoModules()
    with sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return int(counter.get_total_flops())


class _NoModules(ModuleTracker):
    """The counter's tracker of modules without its hooks, which refuse the gradients that a
    backward pass takes of layers rebuilt within it."""

    def __enter__(self) -> None:
        """Nothing is tracked."""

    def __exit__(self, *_: object) -> None:
        """Nothing was."""


def _added_in_place(
    total: Sequence[int], a: Sequence[int], b: Sequence[int], **arguments: Any
) -> int:
    """Of (P, m, k) and (P, k, n)."""
    return 2 * math.prod(a) * b[-1]


def _grouped_convolution_backward(
    grad: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    *arguments: Any,
    out_shape: Any,
) -> int:
    """As much as forward for each gradient; the counter's own formula forgets the groups."""
    needed = sum(shape is not None for shape in out_shape[:2])
    forward = conv_flop_count(list(x), list(weight), list(grad))
    return needed * int(forward)


UNKNOWN: dict[Any, Any] = {
    torch.ops.aten.baddbmm_: _added_in_place,
    torch.ops.aten.convolution_backward: _grouped_convolution_backward,
}
"""What the counter does not know: products added in place, and gradients of depthwise taps."""
