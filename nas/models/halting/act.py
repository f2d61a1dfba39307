"""Adaptive computation time (Graves 2016), per position as in Universal Transformers.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.models.halting.base import Halted, Stack
from nas.models.mechanism import Mechanism
from search_spaces.halting.act import AdaptiveComputationTime
from search_spaces.halting.base import HaltingSlot

FIRST_BIAS = 1.0  # a new model halts after two cycles: sigmoid(1) = 0.73


class Adaptive(Mechanism, spec=AdaptiveComputationTime):
    """Runs the cycle until every position has halted.

    A position halts at N = min{n : Σ h ≥ 1 - ε}; its output is its states weighted by h, the last
    one by the remainder R = 1 - Σ_{n<N} h. From then on its state is frozen, and others still
    attend to it; so outputs depend neither on later positions nor on how many cycles a batch takes.
    """

    def __init__(self, spec: AdaptiveComputationTime, slot: HaltingSlot) -> None:
        super().__init__()
        self.spec = spec
        self.depth = slot.depth
        self.repeats = slot.repeats
        self.unit = nn.Linear(slot.width, 1)
        nn.init.normal_(self.unit.weight, std=0.1 / math.sqrt(slot.width))
        nn.init.constant_(self.unit.bias, FIRST_BIAS)

    def halting_probability(self, x: Tensor) -> Tensor:
        """h of states (B, N, D), (B, N)."""
        return torch.sigmoid(self.unit(functional.layer_norm(x, x.shape[-1:]))).squeeze(-1)

    def forward(self, x: Tensor, stack: Stack, mask: Tensor | None) -> Halted:
        """(B, N, D) → (B, N, D); padding (mask False) never keeps the loop going."""
        active = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if mask is not None:
            active = mask
        mean = torch.zeros_like(x)
        spent = x.new_zeros(x.shape[:2])  # Σ h over the cycles before the current one
        remainder = spent
        cycles = spent
        for n in range(1, self.repeats + 1):
            x = stack.cycle(x, None if n == 1 else active)
            h = self.halting_probability(x)
            halts = active & ((spent + h >= 1 - self.spec.epsilon) | (n == self.repeats))
            goes_on = active & ~halts
            weight = torch.where(halts, 1 - spent, torch.where(goes_on, h, 0))
            mean = torch.addcmul(mean, weight.unsqueeze(-1), x)
            remainder = torch.where(halts, weight, remainder)
            cycles = cycles + active
            spent = spent + torch.where(goes_on, h, 0)
            active = goes_on
            # an exported graph runs all cycles, to the same end: its loop cannot depend on data
            if not torch.compiler.is_exporting() and not bool(active.any()):
                break
        stack.absorb_rest(x)
        ponder = cycles + remainder
        valid = ponder.mean() if mask is None else ponder[mask].mean()
        return Halted(mean, {"ponder": self.spec.ponder_cost * valid}, cycles * self.depth)
