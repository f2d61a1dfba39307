"""From states to logits, at every position or once for a sequence.

Shapes: B batch, N sequence, D width, C outputs.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

HEAD_STD = 0.25  # of a logit at the start: the first loss is then near ln C


def initialise_head(head: nn.Linear) -> None:
    """Weights for inputs that are normed."""
    nn.init.normal_(head.weight, std=HEAD_STD / math.sqrt(head.in_features))


def answer(
    x: Tensor, norm: nn.Module, head: nn.Linear, mask: Tensor | None, *, pooled: bool
) -> Tensor:
    """Logits (B, N, C), or (B, C) of the mean over valid positions, of states (B, N, D)."""
    x = norm(x)
    logits: Tensor = head(mean_of_valid(x, mask) if pooled else x)
    return logits


def mean_of_valid(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of valid positions, (B, N, D) → (B, D)."""
    if mask is None:
        return x.mean(dim=1)
    weight = mask.to(x.dtype).unsqueeze(-1)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
