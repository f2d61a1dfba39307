from __future__ import annotations

import pytest
import torch

from nas.tasks import Task
from nas.training.loop import initial_model
from nas.training.optimizer import build_optimizer, set_learning_rate
from nas.training.schedule import Schedule

from .architectures import tiny


def optimizer_of(task: Task, width: int) -> tuple[dict[str, dict[str, float]], torch.optim.AdamW]:
    """The rate and decay of each parameter, by name."""
    model = initial_model(tiny(width=width), task, 0)
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


def test_every_parameter_is_trained_once(text: Task) -> None:
    groups, optimizer = optimizer_of(text, 32)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(groups)


def test_the_rate_follows_the_schedule(text: Task) -> None:
    _, optimizer = optimizer_of(text, 64)
    set_learning_rate(optimizer, Schedule(10, 0), 9)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.001, 0.001])
