"""Mixture of experts with one expert for each token (Switch Transformer, section 2).

Shapes: B batch, N sequence, D width, X experts, R rows that experts take.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import Unsupported
from nas.models.attention.base import widen
from nas.models.feedforward.base import FeedForward, FeedForwardSlot
from nas.models.feedforward.dense import Dense
from nas.models.replay import remembered
from search_spaces.feedforward.dense import DenseFeedForward
from search_spaces.feedforward.mixture import MixtureFeedForward, row_multiple


class Routing(NamedTuple):
    """Where tokens go: weights p (B, N, X), the expert of each (B, N), whether it takes the token
    (B, N), and how many tokens of each sequence chose each expert (B, X)."""

    weights: Tensor
    expert: Tensor
    kept: Tensor
    chosen: Tensor


class Mixture(FeedForward[MixtureFeedForward], spec=MixtureFeedForward):
    """p · E(x) of the expert E with the greatest p; zero for tokens that it has no room for."""

    auxiliary = "load_balance"

    def __init__(self, spec: MixtureFeedForward, slot: FeedForwardSlot) -> None:
        super().__init__(spec, slot)
        self.max_length = slot.max_length
        self.router = nn.Linear(slot.d_model, spec.experts, bias=False)
        nn.init.normal_(self.router.weight, std=1 / math.sqrt(slot.d_model))
        each = DenseFeedForward(ratio=spec.ratio)
        self.experts = nn.ModuleList(Dense(each, slot) for _ in range(spec.experts))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) → (B, N, D); padding (mask False) takes nobody's place."""
        return self._dispatch(x, self._route(x, mask, None))

    def run(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``forward``, and α · X · Σ fᵢPᵢ (): f the share of valid tokens that chose expert i (kept
        or not), P its mean weight. α where the load is even, αX where all goes to one expert."""
        routing = self._route(x, mask, None)
        weights = routing.weights
        if mask is not None:
            weights = weights * mask.unsqueeze(-1)
        tokens = routing.chosen.sum().clamp_min(1)
        share = routing.chosen.sum(dim=0) / tokens
        mean = weights.sum(dim=(0, 1)) / tokens
        scale = self.spec.auxiliary * self.spec.experts
        return self._dispatch(x, routing), scale * torch.sum(share * mean)

    def last_projections(self) -> tuple[nn.Linear, ...]:
        """Those of all experts."""
        return tuple(p for e in self._experts() for p in e.last_projections())

    def init_state(self, batch_size: int) -> Tensor:
        """How many tokens chose each expert so far, (B, X): none.

        Raises:
            Unsupported: it was built for an encoder.
        """
        if not self.causal:
            raise Unsupported("a mixture of experts built for an encoder does not decode")
        shape = batch_size, self.spec.experts
        return torch.zeros(shape, dtype=torch.int64, device=self.router.weight.device)

    def extend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Go on with N more tokens (B, N, D) after those that the experts have seen."""
        routing = self._route(x, None, state)
        return self._dispatch(x, routing), state + routing.chosen

    def _route(self, x: Tensor, mask: Tensor | None, seen: Tensor | None) -> Routing:
        """First come, first served, within each sequence."""
        # whatever precision the rest is in: close calls would go another way
        with torch.autocast(x.device.type, enabled=False):
            logits = functional.linear(widen(x), widen(self.router.weight))
        weights = logits.softmax(dim=-1)
        expert = remembered(lambda: logits.argmax(dim=-1))
        hits = expert.unsqueeze(-1) == torch.arange(self.spec.experts, device=x.device)
        if mask is not None:
            hits = hits & mask.unsqueeze(-1)
        come = hits.cumsum(dim=1)
        if seen is not None:
            come = come + seen.unsqueeze(1)
        place = come.gather(2, expert.unsqueeze(-1)).squeeze(-1)  # from 1
        kept = place <= self._room(x, mask)
        if mask is not None:
            kept = kept & mask
        return Routing(weights, expert, kept, hits.sum(dim=1))

    def _room(self, x: Tensor, mask: Tensor | None) -> int | Tensor:
        """Tokens of a sequence that an expert takes, () or (B, 1)."""
        if self.causal or mask is None:
            return self.spec.rows(self.max_length if self.causal else x.shape[1])
        valid = mask.sum(dim=1, keepdim=True).double()
        return torch.ceil(self.spec.capacity * valid / self.spec.experts)

    def _dispatch(self, x: Tensor, routing: Routing) -> Tensor:
        """Each expert on the rows that it takes, and their outputs back in their places."""
        if torch.compiler.is_exporting():  # a graph has no shapes that depend on data
            return self.dispatch_plainly(x, routing)
        B, N, _ = x.shape
        # sorted by expert, then by position: how many rows stand before one is known by its time
        key = torch.where(routing.kept, routing.expert, self.spec.experts).t().flatten()
        sizes = key.bincount(minlength=self.spec.experts + 1)[: self.spec.experts].tolist()
        order = key.argsort(stable=True)[: sum(sizes)]
        rows = order % B * N + order // B
        flat = x.reshape(B * N, -1)
        multiple = row_multiple(N, self.causal)
        parts = [
            _on_rows(expert, flat, taken, multiple)
            for expert, taken in zip(self._experts(), torch.split(rows, sizes), strict=True)
        ]
        # back by gathering: each token finds its row, and those that nobody took a row of zeros
        y = torch.cat([*parts, parts[0].new_zeros(1, flat.shape[1])])
        del parts
        place = rows.new_full((B * N,), len(rows))
        place[rows] = torch.arange(len(rows), device=rows.device)
        y = y.index_select(0, place).view(x.shape)
        return y * _gate(routing).unsqueeze(-1).to(y.dtype)

    def dispatch_plainly(self, x: Tensor, routing: Routing) -> Tensor:
        """The same as it is defined: every expert on all tokens."""
        outputs = torch.stack([expert(x) for expert in self._experts()], dim=-2)  # (B, N, X, D)
        index = routing.expert[..., None, None].expand(*x.shape[:2], 1, x.shape[2])
        y = outputs.gather(2, index).squeeze(2)
        gate = _gate(routing) * routing.kept
        return y * gate.unsqueeze(-1).to(y.dtype)

    def _experts(self) -> list[Dense]:
        return [expert for expert in self.experts if isinstance(expert, Dense)]


def _gate(routing: Routing) -> Tensor:
    """The weight of each token's expert, (B, N)."""
    return routing.weights.gather(2, routing.expert.unsqueeze(-1)).squeeze(-1)


def _on_rows(expert: Dense, flat: Tensor, rows: Tensor, multiple: int) -> Tensor:
    """An expert's outputs for some rows of (B · N, D)."""
    x = flat.index_select(0, rows)
    if lacking := -len(rows) % multiple:
        x = functional.pad(x, (0, 0, 0, lacking))
    y: Tensor = expert(x)
    return y[: len(rows)]
