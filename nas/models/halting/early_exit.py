"""Early exit by confidence.

Shapes: B batch, N sequence, D width, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nas.models.halting.base import Exits, PositionLosses
from nas.models.halting.exits import Exiting, mean_over_exits
from search_spaces.halting.early_exit import EarlyExit


@dataclass(frozen=True)
class Uniform:
    """The answers of all exits (R of them), which count alike in training."""

    logits: tuple[Tensor, ...]

    def loss(self, losses: PositionLosses) -> Tensor:
        """The mean of the losses of all exits."""
        return mean_over_exits(self.logits, losses)


class Confident(Exiting[EarlyExit], spec=EarlyExit):
    """Leaves where the greatest probability is at least ``threshold``."""

    def evidence(self, x: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
        """The greatest probability, in at least fp32."""
        wide = logits if logits.dtype.itemsize >= 4 else logits.float()
        return (wide.amax(dim=-1) - wide.logsumexp(dim=-1)).exp()

    def lets_go(self, evidence: Tensor) -> Tensor:
        """Whether it is enough."""
        return evidence >= self.spec.threshold

    def exits(self, logits: Sequence[Tensor], evidence: Sequence[Tensor]) -> Exits:
        """All answers; how sure they are teaches nothing."""
        return Uniform(tuple(logits))
