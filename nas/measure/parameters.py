"""Counting the trainable scalars of a module."""

from __future__ import annotations

from torch import nn


def count_parameters(module: nn.Module) -> int:
    """Trainable scalars, a shared one counted once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
