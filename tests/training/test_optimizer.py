from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nas.models import build_attention, build_feedforward
from nas.tasks import Task
from nas.training.loop import initial_model
from nas.training.optimizer import build_optimizer, set_learning_rate
from nas.training.schedule import Schedule

from .architectures import tiny


def optimizer_of(task: Task, width: int) -> tuple[dict[str, dict[str, float]], torch.optim.AdamW]:
    """The rate and decay of each parameter, by name."""
    return groups_of(initial_model(tiny(width=width), task, 0), width)


def groups_of(
    model: nn.Module, width: int
) -> tuple[dict[str, dict[str, float]], torch.optim.AdamW]:
    optimizer = build_optimizer(model, width=width, learning_rate=0.01, weight_decay=0.1)
    set_learning_rate(optimizer, Schedule(10, 0), 0)
    groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    return {name: groups[id(p)] for name, p in model.named_parameters()}, optimizer


def test_matrices_scale_with_the_width_and_decay(text: Task) -> None:
    for width in (32, 128):
        groups, _ = optimizer_of(text, width)
        for name in ("layers.0.attention.qkv.weight", "head.weight"):
            assert groups[name]["lr"] == pytest.approx(0.01 * 64 / width)
            assert groups[name]["weight_decay"] == 0.1


def test_embeddings_norms_and_biases_keep_their_rate_and_do_not_decay(text: Task) -> None:
    groups, _ = optimizer_of(text, 128)
    kept = [n for n in groups if "embedding" in n or "positions" in n or "norm" in n or "bias" in n]
    assert len(kept) >= 4
    for name in kept:
        assert groups[name]["lr"] == pytest.approx(0.01)
        assert groups[name]["weight_decay"] == 0


@pytest.mark.parametrize("causal", [True, False])
def test_depthwise_taps_keep_their_rate_and_do_not_decay(causal: bool) -> None:
    module = build_feedforward({"type": "convolution"}, d_model=128, max_length=32, causal=causal)
    groups, _ = groups_of(module, 128)
    convolutions = {name for name, p in module.named_parameters() if p.dim() == 3}
    for name in convolutions:
        fixed = "depthwise" in name
        assert groups[name]["lr"] == pytest.approx(0.01 if fixed else 0.005)
        assert groups[name]["weight_decay"] == (0 if fixed else 0.1)
    assert any("depthwise" in name for name in convolutions)
    assert groups["branches.last.pointwise.weight"]["lr"] == pytest.approx(0.005)
    assert causal or "branches.narrow.weight" in convolutions


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"type": "nystromformer", "kernel": 5}, "kernel"),
        ({"type": "linformer"}, "shorten"),
        ({"type": "synthesizer", "variant": "random"}, "scores"),
    ],
)
def test_sums_over_positions_keep_their_rate(spec: dict[str, Any], name: str) -> None:
    module = build_attention(spec, d_model=128, heads=2, max_length=32, causal=False)
    groups, _ = groups_of(module, 128)
    assert (groups[name]["lr"], groups[name]["weight_decay"]) == (0.01, 0)
    assert groups["out.weight"]["lr"] == 0.005


def test_every_parameter_is_trained_once(text: Task) -> None:
    groups, optimizer = optimizer_of(text, 32)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(groups)


def test_the_rate_follows_the_schedule(text: Task) -> None:
    _, optimizer = optimizer_of(text, 64)
    set_learning_rate(optimizer, Schedule(10, 0), 9)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.001, 0.001])
