"""Efficient mechanisms must not hold anything that grows with N²."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from nas.measure.memory import LiveBytes
from nas.models import build_attention

LENGTHS = (1024, 2048, 4096, 8192)
EFFICIENT = [
    ({"type": "longformer", "window": 32}, True),
    ({"type": "longformer", "window": 32, "globals": 4}, False),
    ({"type": "cascade", "window": 32}, True),
    ({"type": "cascade", "window": 32}, False),
    ({"type": "linear"}, True),
    ({"type": "linear"}, False),
    ({"type": "performer", "features": 32}, True),
    ({"type": "performer", "features": 32}, False),
    ({"type": "linformer", "rank": 32}, False),
    ({"type": "nystromformer", "landmarks": 32}, False),
    ({"type": "gated_linear"}, True),
    ({"type": "gated_linear"}, False),
    ({"type": "linformer", "rank": 32, "sharing": "model"}, False),
    ({"type": "reformer", "chunk": 32, "hashes": 2}, True),
    ({"type": "reformer", "chunk": 32, "hashes": 2}, False),
    ({"type": "sinkhorn"}, True),
    ({"type": "sinkhorn"}, False),
    ({"type": "strided"}, True),
    ({"type": "strided"}, False),
    ({"type": "fixed"}, True),
    ({"type": "fixed"}, False),
    ({"type": "bigbird", "block": 32}, False),
    ({"type": "blockbert"}, False),
]


def peak(spec: dict[str, Any], causal: bool, N: int, train: bool) -> int:
    """Bytes alive at most in one pass over N positions, forward or both ways."""
    module = build_attention(spec, d_model=16, heads=2, max_length=N, causal=causal)
    x = torch.randn(1, N, 16)
    with LiveBytes() as live, torch.set_grad_enabled(train):
        y = module(x)
        if train:
            y.sum().backward()
    return live.peak


@pytest.mark.parametrize(("spec", "causal"), EFFICIENT, ids=str)
@pytest.mark.parametrize("train", [False, True])
def test_memory_grows_with_the_length(spec: dict[str, Any], causal: bool, train: bool) -> None:
    peaks = [peak(spec, causal, N, train) for N in LENGTHS]
    steps = [math.log2(b / a) for a, b in pairwise(peaks)]
    assert max(steps) <= 1.1
    assert peaks[-1] < 4 * LENGTHS[-1] ** 2
