"""Depth-adaptive halting (Elbayad et al. 2019), token-specific and geometric-like.

Shapes: B batch, N sequence, D width, C outputs, R exits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.models.answer import mean_of_valid
from nas.models.halting.base import Exits, PositionLosses
from nas.models.halting.exits import Exiting, mean_of_targets
from search_spaces.halting.base import HaltingSlot
from search_spaces.halting.depth_adaptive import DepthAdaptive

FIRST_BIAS = -1.0  # a new model goes through all layers: sigmoid(-1) = 0.27


@dataclass(frozen=True)
class Taught:
    """The answers of R exits, and for all but the last the logits of χ, (B, N) or (B,) each."""

    logits: tuple[Tensor, ...]
    halting: tuple[Tensor, ...]
    penalty: float

    def loss(self, losses: PositionLosses) -> Tensor:
        """The mean loss of the exits, and the cross-entropy of q to the oracle's choice."""
        each, counts = zip(*(losses(answer) for answer in self.logits), strict=True)
        mean = torch.stack(
            [mean_of_targets(e, c) for e, c in zip(each, counts, strict=True)]
        ).mean()
        choice = self.oracle(torch.stack([e.detach() for e in each], dim=-1))
        chosen = self.log_q().gather(-1, choice.unsqueeze(-1)).squeeze(-1)
        return mean + mean_of_targets(-chosen, counts[0])

    def oracle(self, losses: Tensor) -> Tensor:
        """The exit, from 0, where the loss with ``penalty`` for each layer is least: (…, R) → (…).

        The likelihoods are not smoothed over neighbouring positions (σ → 0 in section 3.2.2).
        """
        layers = torch.arange(losses.shape[-1], device=losses.device)
        return (losses + self.penalty * layers).argmin(dim=-1)

    def log_q(self) -> Tensor:
        """log q(n), (…, R): χ_n Π_{m<n} (1 - χ_m), and for the last what is left."""
        chi = torch.stack(self.halting, dim=-1).float()
        goes_on = functional.logsigmoid(-chi).cumsum(dim=-1)
        before = functional.pad(goes_on, (1, 0))
        return before + functional.pad(functional.logsigmoid(chi), (0, 1))


class Learned(Exiting[DepthAdaptive], spec=DepthAdaptive):
    """Leaves where χ = sigmoid(w · h + b) is at least 1/2, h being normed; all exits share w, b."""

    def __init__(self, spec: DepthAdaptive, slot: HaltingSlot) -> None:
        super().__init__(spec, slot)
        self.unit = nn.Linear(slot.width, 1)
        nn.init.normal_(self.unit.weight, std=0.1 / math.sqrt(slot.width))
        nn.init.constant_(self.unit.bias, FIRST_BIAS)

    def evidence(self, x: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
        """The logit of χ."""
        h = functional.layer_norm(x, x.shape[-1:])
        logit: Tensor = self.unit(mean_of_valid(h, mask) if self.pooled else h)
        return logit.squeeze(-1)

    def lets_go(self, evidence: Tensor) -> Tensor:
        """χ ≥ 1/2."""
        return evidence >= 0

    def exits(self, logits: Sequence[Tensor], evidence: Sequence[Tensor]) -> Exits:
        """Answers, halting and what the oracle needs."""
        return Taught(tuple(logits), tuple(evidence), self.spec.penalty)
