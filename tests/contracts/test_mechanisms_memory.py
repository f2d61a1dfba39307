"""What every attention mechanism holds in memory: as much as its spec promises, no N² mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.measure.memory import LiveBytes
from nas.models import build_attention
from nas.models.attention.base import Attention
from search_spaces.attention import ATTENTION
from search_spaces.attention.base import BIASES

D, H = 16, 1
LENGTHS = 8192, 32768
SHORTER = 2048, 8192
MOST_FLOPS = 2**35  # of one pass: beyond, exponents are those of shorter sequences

SLOTS = [
    pytest.param(name, causal, id=f"{name}-{'causal' if causal else 'all'}")
    for name, spec in ATTENTION.items()
    for causal in (True, False)
    if spec.causal or not causal
]


class Squares(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Within it, ``found`` gathers the operations that made a matrix of N × N or more."""

    def __init__(self, N: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.N = N
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and min((0, 0, *tensor.shape)[-2:]) >= self.N:
                self.found.append(f"{func} {tensor.dtype} {tuple(tensor.shape)}")
        return out


def layer(name: str, causal: bool, N: int, position: Any = "none") -> Attention[Any]:
    torch.manual_seed(0)
    return build_attention(
        {"type": name}, d_model=D, heads=H, max_length=N, causal=causal, position=position
    )


def peak(name: str, causal: bool, N: int) -> int:
    """Bytes of tensors alive at most in one pass both ways; the process's own are none of them."""
    module = layer(name, causal, N)
    x = torch.randn(1, N, D)
    with LiveBytes() as live:
        module(x).sum().backward()
    return live.peak


@pytest.mark.parametrize(("name", "causal"), SLOTS)
def test_memory_grows_as_promised(name: str, causal: bool) -> None:
    spec = ATTENTION[name]()
    cheap = spec.cost(1, LENGTHS[-1], D, H, causal).flops <= MOST_FLOPS
    shorter, longer = LENGTHS if cheap else SHORTER
    growth = peak(name, causal, longer) / peak(name, causal, shorter)
    assert math.log(growth, longer / shorter) <= spec.memory_exponent + 0.1


@pytest.mark.parametrize(("name", "causal"), SLOTS)
@pytest.mark.parametrize("position", ["none", *sorted(BIASES)])
def test_no_matrix_of_all_pairs(name: str, causal: bool, position: str) -> None:
    N = 2048
    if position not in ATTENTION[name].positions:
        return
    module = layer(name, causal, N, position)
    padding = torch.arange(N).expand(1, N) < N - 5
    for mask in (None, padding):
        with Squares(N) as squares:
            module(torch.randn(1, N, D), mask).sum().backward()
        assert squares.found == []
