"""The whole model of an architecture.

Shapes: B batch, N sequence, H heads, D width, E head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nas.errors import Unsupported
from nas.models.attention.base import Shared, key_mask
from nas.models.mechanism import module_class
from nas.models.norms import build_norm
from nas.models.positions import Positions
from nas.models.registry import build_attention, build_feedforward
from nas.models.residual.base import ResidualLayer
from search_spaces.architecture import Architecture, check
from search_spaces.errors import InvalidInput, Problem

EMBEDDING_STD = 0.5  # of the order of what the layers add; smaller ones learnt more slowly
POSITION_STD = 0.02
HEAD_STD = 0.25  # of a logit at the start: the first loss is then near ln V

Head = Literal["token", "pooled"]


@dataclass(frozen=True)
class ModelState:
    """What a causal model keeps of the tokens so far: their number, and a state for each layer of
    each cycle."""

    position: int
    layers: tuple[Any, ...]


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass gives.

    logits: (B, N, num_outputs), pooled (B, num_outputs).  aux: losses to add, already weighted.
    state: where the given state has come to.  metrics: "expected_depth", layers per valid token.
    """

    logits: Tensor
    aux: dict[str, Tensor]
    state: ModelState | None
    metrics: dict[str, Tensor]


class Transformer(nn.Module):
    """An architecture as a module: embedding, the cycle of layers, norm, head."""

    def __init__(
        self,
        arch: Architecture,
        *,
        vocab_size: int,
        num_outputs: int,
        max_length: int,
        causal: bool,
        head: Head,
    ) -> None:
        check(arch, causal=causal)
        super().__init__()
        self.arch = arch
        self.causal = causal
        self.pooled = head == "pooled"
        D = arch.width
        self.embedding = nn.Embedding(vocab_size, D)
        self.positions = Positions(arch.position, D, max_length)
        self.shared = Shared()
        join: Any = module_class(type(arch.residual))
        halt: Any = module_class(type(arch.halting))
        self.layers = nn.ModuleList(
            join(
                arch.residual,
                attention=build_attention(
                    layer.attention.at(i),
                    d_model=D,
                    heads=layer.heads,
                    max_length=max_length,
                    causal=causal,
                    position=arch.position,
                    shared=self.shared,
                ),
                feedforward=build_feedforward(
                    layer.feedforward, d_model=D, max_length=max_length, causal=causal
                ),
                norm=arch.norm,
                d_model=D,
            )
            for i, layer in enumerate(arch.layers)
        )
        self.halting = halt(arch.halting, d_model=D, repeats=arch.repeats)
        self.norm = build_norm(arch.norm, D)
        self.head = nn.Linear(D, num_outputs, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        if self.positions.table is not None:
            nn.init.normal_(self.positions.table.weight, std=POSITION_STD)
        nn.init.normal_(self.head.weight, std=HEAD_STD / math.sqrt(self.arch.width))
        # the stream is a sum of that many terms: each starts small, so that the sum is of order 1
        scale = 1 / math.sqrt(2 * self.arch.depth * self.arch.repeats)
        with torch.no_grad():
            for layer in self.cycle():
                layer.attention.out.weight.mul_(scale)
                for projection in layer.feedforward.last_projections():
                    projection.weight.mul_(scale)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, state: ModelState | None = None
    ) -> ModelOutput:
        """Logits of tokens (B, N); mask (B, N), True = valid; from ``state`` on if there is one.

        Raises:
            InvalidInput: an empty or too long sequence, a mask together with a state.
            Unsupported: a state for a model that does not decode.
        """
        if tokens.dim() != 2 or tokens.shape[1] == 0:
            message = f"tokens of shape (B, N) wanted, not {tuple(tokens.shape)}"
            raise InvalidInput([Problem("", message)])
        if state is not None and mask is not None:
            raise InvalidInput([Problem("", "tokens that continue a state cannot be masked")])
        cycle = _Cycle(self, tokens.shape[1], key_mask(mask, self.causal), state)
        x = self.positions(self.embedding(tokens), cycle.start)
        halted = self.halting(x, cycle, mask)
        x = self.norm(halted.x)
        logits = self.head(_mean(x, mask) if self.pooled else x)
        depth = self._depth(halted.cycles, mask, logits)
        return ModelOutput(logits, halted.aux, cycle.state(), {"expected_depth": depth})

    def cycle(self) -> Iterator[ResidualLayer]:
        """The distinct layers, in order."""
        return cast("Iterator[ResidualLayer]", iter(self.layers))

    def init_state(self, batch_size: int) -> ModelState:
        """The state before the first token.

        Raises:
            Unsupported: an encoder, a pooled head, or a mechanism that does not decode.
        """
        self._must_decode()
        return ModelState(
            0,
            tuple(
                layer.init_state(batch_size)
                for _ in range(self.arch.repeats)
                for layer in self.cycle()
            ),
        )

    def step(self, token: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """The logits (B, num_outputs) after one more token (B,), and the state after it."""
        out = self.forward(token.unsqueeze(1), state=state)
        return out.logits.squeeze(1), cast("ModelState", out.state)

    def _must_decode(self) -> None:
        if not self.causal:
            raise Unsupported("an encoder has no state: it sees the whole sequence at once")
        if self.pooled:
            raise Unsupported("a pooled head has no state: it answers once for the whole sequence")

    def _depth(self, cycles: Tensor | None, mask: Tensor | None, like: Tensor) -> Tensor:
        """Layers executed for a valid token, mean."""
        if cycles is None:
            return like.new_tensor(float(self.arch.depth * self.arch.repeats))
        valid = cycles if mask is None else cycles[mask]
        return valid.detach().float().mean() * self.arch.depth


class _Cycle:
    """The layers of a model, one call for each cycle (see ``nas.models.halting.base.Cycle``)."""

    def __init__(
        self, model: Transformer, length: int, mask: Tensor | None, state: ModelState | None
    ) -> None:
        self.layers = list(model.cycle())
        self.start = 0 if state is None else state.position
        self.stop = self.start + length
        self.mask = mask
        self.states = None if state is None else list(state.layers)
        like = model.embedding.weight
        self.rotations = [
            model.positions.rotation(layer.attention.head_width, self.start, length, like)
            for layer in self.layers
        ]
        self.run = 0  # layers executed so far

    def __call__(self, x: Tensor, active: Tensor | None) -> Tensor:
        for layer, rotation in zip(self.layers, self.rotations, strict=True):
            if self.states is None:
                y = layer(x, self.mask, rotation)
            else:
                y, self.states[self.run] = layer.extend(x, self.states[self.run], rotation)
            x = y if active is None else torch.where(active.unsqueeze(-1), y, x)
            self.run += 1
        return x

    def absorb_rest(self, x: Tensor) -> None:
        if self.states is None:
            return
        for i in range(self.run, len(self.states)):
            j = i % len(self.layers)
            self.states[i] = self.layers[j].absorb(x, self.states[i], self.rotations[j])

    def state(self) -> ModelState | None:
        """What a model that was given a state has come to."""
        return None if self.states is None else ModelState(self.stop, tuple(self.states))


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of valid positions, (B, N, D) → (B, D)."""
    if mask is None:
        return x.mean(dim=1)
    weight = mask.to(x.dtype).unsqueeze(-1)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def build_model(
    arch: Architecture,
    *,
    vocab_size: int,
    num_outputs: int,
    max_length: int,
    causal: bool,
    head: Head,
) -> Transformer:
    """The module of an architecture, freshly initialised from PyTorch's random state.

    head: "token" for an output at every position, "pooled" for one from the mean over positions.

    Raises:
        InvalidArchitecture: it cannot stand in a causal slot.
    """
    return Transformer(
        arch,
        vocab_size=vocab_size,
        num_outputs=num_outputs,
        max_length=max_length,
        causal=causal,
        head=head,
    )
