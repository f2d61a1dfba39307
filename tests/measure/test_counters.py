"""The counters that the cost arithmetic is held against."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nas.measure.flops import count_flops
from nas.measure.memory import LiveBytes, allocated_peak
from nas.measure.parameters import count_parameters


def test_live_bytes_follow_storages() -> None:
    with LiveBytes() as counted:
        a = torch.zeros(1000)
        view = a.view(10, 100)
        b = a + 1
        assert (counted.live, counted.peak) == (8000, 8000)
        del a
        assert counted.live == 8000
        del view
        assert counted.live == 4000
        del b
        assert (counted.live, counted.peak) == (0, 8000)


def test_what_was_there_before_is_not_counted() -> None:
    weights = torch.zeros(1000)
    with LiveBytes() as counted:
        weights.add_(1)
        rows = weights.view(10, 100)
        assert counted.live == 0
        made = rows.exp()
        assert counted.live == made.untyped_storage().nbytes()


def test_what_the_graph_keeps_is_alive() -> None:
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes() as counted:
        loss = x.exp().sum()
        assert counted.live == 4000 + 4
        loss.backward()
        assert counted.peak >= 8000


def test_flops_of_fused_attention_are_counted() -> None:
    q = torch.randn(2, 3, 50, 8)
    flops = count_flops(lambda: functional.scaled_dot_product_attention(q, q, q, is_causal=True))
    assert flops == 2 * (2 * 2 * 3 * 50 * 50 * 8)


def test_shared_parameters_count_once() -> None:
    linear = nn.Linear(3, 4)
    frozen = nn.Linear(5, 5).requires_grad_(False)
    assert count_parameters(nn.ModuleList([linear, linear, frozen])) == 16


def test_scratch_of_kernels_is_allocated() -> None:
    channels = nn.Conv1d(64, 64, 7, groups=64, bias=False).requires_grad_(False)
    x = torch.randn(4, 64, 500)
    channels(x)
    with LiveBytes() as counted:
        channels(x)
    assert counted.peak == 4 * 4 * 64 * 494
    assert allocated_peak(lambda: channels(x)) > 1.5 * counted.peak
    assert allocated_peak(lambda: torch.ones(1000).add_(1)) == pytest.approx(4000, abs=64)
