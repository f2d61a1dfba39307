"""Exits after every layer: what early exit and depth-adaptive halting share.

Shapes: B batch, N sequence, D width, C outputs, R exits: as many as layers are run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from nas.models.answer import answer, initialise_head
from nas.models.halting.base import Exits, Halted, PositionLosses, Stack
from nas.models.mechanism import Mechanism
from nas.models.norms import build_norm
from search_spaces.halting.base import HaltingSlot
from search_spaces.halting.exits import ExitHalting

S = TypeVar("S", bound=ExitHalting)


class Exiting(Mechanism, Generic[S]):
    """A norm and a classifier after each layer run; the last ones are the model's own.

    In training all layers are run, and the model answers with its last exit. Otherwise each
    position (with a pooled head: each sequence) leaves at the first exit that lets it go, and that
    is its answer. From then on its state is frozen, and others still attend to it, so that answers
    depend neither on later positions nor on how many layers a batch takes.
    """

    def __init__(self, spec: S, slot: HaltingSlot) -> None:
        super().__init__()
        self.spec = spec
        self.pooled = slot.pooled
        self.norms = nn.ModuleList(build_norm(slot.norm, slot.width) for _ in range(slot.runs - 1))
        self.heads = nn.ModuleList(
            nn.Linear(slot.width, slot.outputs, bias=False) for _ in range(slot.runs - 1)
        )
        for head in self.heads:
            initialise_head(cast("nn.Linear", head))

    def forward(self, x: Tensor, stack: Stack, mask: Tensor | None) -> Halted:
        """(B, N, D) → the answers; padding (mask False) never keeps the loop going."""
        if self.training:
            return self._run_all(x, stack, mask)
        return self._leave(x, stack, mask)

    @abstractmethod
    def evidence(self, x: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
        """What an exit before the last decides by, (B, N) or (B,), from states and its answer."""

    @abstractmethod
    def lets_go(self, evidence: Tensor) -> Tensor:
        """Who leaves, (B, N) or (B,)."""

    @abstractmethod
    def exits(self, logits: Sequence[Tensor], evidence: Sequence[Tensor]) -> Exits:
        """What training needs: the answers of R exits, and the evidence of all but the last."""

    def _answer(self, i: int, x: Tensor, mask: Tensor | None) -> Tensor:
        head = cast("nn.Linear", self.heads[i])
        return answer(x, self.norms[i], head, mask, pooled=self.pooled)

    def _run_all(self, x: Tensor, stack: Stack, mask: Tensor | None) -> Halted:
        logits, evidence = [], []
        for i in range(len(self.heads)):
            x = stack.layer(x, None)
            logits.append(self._answer(i, x, mask))
            evidence.append(self.evidence(x, logits[i], mask))
        x = stack.layer(x, None)
        logits.append(stack.answer(x))
        return Halted(x, {}, None, logits[-1], self.exits(logits, evidence))

    def _leave(self, x: Tensor, stack: Stack, mask: Tensor | None) -> Halted:
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        waiting = valid.any(dim=1) if self.pooled else valid
        layers = x.new_zeros(waiting.shape)
        x = stack.layer(x, None)
        layers = layers + waiting
        kept = self._answer(0, x, mask)
        waiting = waiting & ~self.lets_go(self.evidence(x, kept, mask))
        for i in range(1, len(self.heads) + 1):
            # an exported graph runs all layers, to the same end: its loop cannot depend on data
            if not torch.compiler.is_exporting() and not bool(waiting.any()):
                break
            x = stack.layer(x, waiting.unsqueeze(1) & valid if self.pooled else waiting)
            layers = layers + waiting
            last = i == len(self.heads)
            logits = stack.answer(x) if last else self._answer(i, x, mask)
            # whoever stays takes this answer for the time being
            kept = torch.where(waiting.unsqueeze(-1), logits, kept)
            if not last:
                waiting = waiting & ~self.lets_go(self.evidence(x, logits, mask))
        stack.absorb_rest(x)
        if self.pooled:
            layers = layers.unsqueeze(1).expand(x.shape[:2])
        return Halted(x, {}, layers, kept)


def mean_over_exits(logits: Sequence[Tensor], losses: PositionLosses) -> Tensor:
    """The mean loss of all exits, each with the same weight."""
    return torch.stack([mean_of_targets(*losses(answer)) for answer in logits]).mean()


def mean_of_targets(loss: Tensor, counts: Tensor) -> Tensor:
    """The mean of the losses that count, ()."""
    return torch.where(counts, loss, 0).sum() / counts.sum()
