"""The window that grows along the layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.models import build_attention, build_model
from nas.models.attention.cascade import Cascade
from search_spaces.architecture import Architecture
from search_spaces.attention.cascade import WIDEST, CascadeAttention


def built(spec: dict[str, Any], causal: bool) -> Any:
    return build_attention(spec, d_model=16, heads=2, max_length=150, causal=causal).double()


def test_the_window_grows_by_layer_and_stops() -> None:
    spec = CascadeAttention(window=4, growth=2)
    assert [spec.at(i).window for i in range(5)] == [4, 8, 16, 32, 64]
    assert spec.at(10**6).window == WIDEST
    assert CascadeAttention(growth=1).at(10**6).window == 4
    assert spec == CascadeAttention()


def test_a_wider_window_costs_more() -> None:
    spec = CascadeAttention()
    costs = [spec.at(i).cost(1, 512, 64, 4, True) for i in range(6)]
    assert [c.flops for c in costs] == sorted({c.flops for c in costs})
    assert len({c.parameters for c in costs}) == 1


def test_a_model_gives_each_layer_its_window() -> None:
    layer = {"attention": {"type": "cascade", "window": 3, "growth": 2}, "heads": 2}
    arch = Architecture.model_validate(
        {"width": 16, "layers": [layer | {"feedforward": {"type": "dense", "ratio": 1}}] * 3}
    )
    model = build_model(arch, vocab_size=8, num_outputs=8, max_length=50, causal=True, head="token")
    modules = [m for m in model.modules() if isinstance(m, Cascade)]
    assert [m.band.left for m in modules] == [3, 6, 12]
    assert model.arch == arch


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_a_longformer_without_global_positions(causal: bool) -> None:
    cascade = built({"type": "cascade", "window": 16}, causal)
    longformer = built({"type": "longformer", "window": 16, "globals": 0}, causal)
    longformer.load_state_dict(cascade.state_dict())
    x = torch.randn(2, 150, 16, dtype=torch.float64)
    assert torch.equal(cascade(x), longformer(x))


@pytest.mark.parametrize(("causal", "right"), [(True, 0), (False, 4)])
def test_the_window_ends_where_it_says(causal: bool, right: int) -> None:
    module = built({"type": "cascade"}, causal)
    x = torch.randn(1, 150, 16, dtype=torch.float64)
    changed = x.clone()
    changed[:, 70] += 1
    moved = (module(changed) != module(x)).any(dim=2)[0].nonzero().flatten().tolist()
    assert moved == list(range(70 - right, 70 + 4 + 1))


def test_the_cache_is_no_longer_than_the_window() -> None:
    module = built({"type": "cascade"}, causal=True)
    _, state = module.extend(torch.randn(2, 40, 16).double(), module.init_state(2))
    assert state.keys.shape[1] == 4
