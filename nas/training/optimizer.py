"""AdamW with a learning rate that can be carried from one width to another."""

from __future__ import annotations

import torch
from torch import nn

from nas.training.schedule import Schedule

BASE_WIDTH = 64
FUSED = frozenset({"cpu", "cuda"})
"""Devices with a fused kernel: on a CPU one pass over the weights instead of a dozen."""


def build_optimizer(
    model: nn.Module, *, width: int, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW in two groups, after µP (Yang et al. 2022, arXiv:2203.03466, table 3).

    Matrices (whose fan-in grows with the width, the output layer included) train at
    learning_rate · 64 / width and decay. Embeddings, biases and norms train at learning_rate,
    whatever the width, and do not decay.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() >= 2 and id(parameter) not in embedded
            (matrices if matrix else others).append(parameter)
    scaled = learning_rate * BASE_WIDTH / width
    groups = [
        {"params": matrices, "full_rate": scaled, "weight_decay": weight_decay},
        {"params": others, "full_rate": learning_rate, "weight_decay": 0.0},
    ]
    device = next(model.parameters()).device
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        fused=device.type in FUSED,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Give each group its rate at a step, from 0."""
    factor = schedule.factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["full_rate"] * factor
