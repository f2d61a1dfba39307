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
    learning_rate · 64 / width and decay. All else trains at learning_rate, whatever the width, and
    does not decay: embeddings, biases and norms, and what sums over a fixed number of terms, such
    as the taps of a depthwise convolution and tables of positions.
    """
    across_channels = {id(p) for module in model.modules() for p in _matrices(module)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (matrices if id(parameter) in across_channels else others).append(parameter)
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


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """The module's own weights that sum over all channels."""
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv1d) and module.groups == 1):
        return [p for p in module.parameters(recurse=False) if p.dim() > 1]
    return []


def set_learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Give each group its rate at a step, from 0."""
    factor = schedule.factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["full_rate"] * factor
