"""The norms of a model: their names, and what one costs."""

from __future__ import annotations

from typing import Literal, TypeAlias

Norm: TypeAlias = Literal["layer_norm", "rms_norm"]


def norm_parameters(norm: Norm, width: int) -> int:
    """Trainable scalars: scales, and shifts where there are any."""
    return 2 * width if norm == "layer_norm" else width


def norm_statistics(norm: Norm) -> int:
    """Numbers that it keeps of each position for the backward pass, beside its input."""
    return 2 if norm == "layer_norm" else 1
