"""Building parts from specs, and what is refused."""

from __future__ import annotations

import pytest
import torch

from nas.models import build_attention, build_feedforward
from nas.models.attention.base import Attention
from nas.models.attention.longformer import Longformer
from search_spaces.attention.full import FullAttention
from search_spaces.attention.longformer import LongformerAttention
from search_spaces.errors import InvalidInput


def test_a_spec_or_its_json() -> None:
    as_json = {"type": "longformer", "window": 3}
    for spec in (as_json, LongformerAttention(window=3)):
        module = build_attention(spec, d_model=8, heads=2, max_length=9, causal=True)
        assert isinstance(module, Longformer)
        assert module.spec.window == 3


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"type": "longformer", "window": 0}, "/longformer/window"),
        ({"type": "longformer", "windows": 3}, "/longformer/windows"),
        ({"type": "nonesuch"}, ""),
        ({}, ""),
    ],
)
def test_refused_specs(spec: dict[str, object], pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        build_attention(spec, d_model=8, heads=2, max_length=9, causal=True)
    assert [p.pointer for p in refused.value.problems] == [pointer]


def test_refused_feedforward() -> None:
    with pytest.raises(InvalidInput, match="ratio"):
        build_feedforward({"type": "dense", "ratio": -1}, d_model=8, max_length=9, causal=True)


def test_heads_divide_the_width() -> None:
    with pytest.raises(InvalidInput, match="3 heads do not divide width 8"):
        build_attention({"type": "full"}, d_model=8, heads=3, max_length=9, causal=True)


def test_one_module_for_each_spec() -> None:
    with pytest.raises(TypeError, match="FullAttention is realised twice"):

        class Again(Attention[FullAttention], spec=FullAttention):
            pass


def test_a_token_keeps_its_rank() -> None:
    module = build_attention({"type": "linear"}, d_model=8, heads=2, max_length=9, causal=True)
    assert module.step(torch.zeros(3, 8))[0].shape == (3, 8)
    assert module.step(torch.zeros(3, 1, 8))[0].shape == (3, 1, 8)
