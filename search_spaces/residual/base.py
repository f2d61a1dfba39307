"""What every residual spec states."""

from __future__ import annotations

from typing import ClassVar

from search_spaces.values import Spec


class ResidualSpec(Spec):
    """How a layer's two blocks are joined to the stream; one kind for a whole model."""

    kind: ClassVar[str] = "residual"
    rebuilds: ClassVar[bool] = False
    """Whether the backward pass computes every layer's input from its output, and keeps none."""
