"""The whole model of an architecture.

Shapes: B batch, N sequence, H heads, D width, E head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nas.errors import Unsupported
from nas.models.answer import answer, initialise_head
from nas.models.attention.base import Shared
from nas.models.halting.base import Exits, Halted
from nas.models.mechanism import module_class
from nas.models.norms import build_norm
from nas.models.positions import Positions
from nas.models.registry import build_attention, build_feedforward
from nas.models.residual.base import ResidualLayer
from nas.models.stack import LayerStack
from search_spaces.architecture import Architecture, check
from search_spaces.errors import InvalidInput, Problem
from search_spaces.halting.base import HaltingSlot

EMBEDDING_STD = 0.5  # of the order of what the layers add; smaller ones learnt more slowly
POSITION_STD = 0.02

Head = Literal["token", "pooled"]
Memory = tuple[Tensor | None, ...]
"""Of each layer run: what it keeps of the segments before, (B, M, D), or None."""


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
    exits: in training, of a model with exits: its loss is theirs, not that of the logits alone.
    memory: what the next segment is to be given, of a model that has a memory.
    """

    logits: Tensor
    aux: dict[str, Tensor]
    state: ModelState | None
    metrics: dict[str, Tensor]
    exits: Exits | None = None
    memory: Memory | None = None


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
        dropout: float = 0.0,
    ) -> None:
        check(arch, causal=causal)
        if not 0 <= dropout < 1:
            raise InvalidInput([Problem("/dropout", f"no dropout of {dropout}", ("0 ≤ p < 1",))])
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
                dropout=dropout,
            )
            for i, layer in enumerate(arch.layers)
        )
        slot = HaltingSlot(D, arch.depth, arch.repeats, arch.norm, num_outputs, self.pooled)
        self.halting = halt(arch.halting, slot)
        self.norm = build_norm(arch.norm, D)
        self.head = nn.Linear(D, num_outputs, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        if self.positions.table is not None:
            nn.init.normal_(self.positions.table.weight, std=POSITION_STD)
        initialise_head(self.head)
        # the stream is a sum of that many terms: each starts small, so that the sum is of order 1
        scale = 1 / math.sqrt(2 * self.arch.depth * self.arch.repeats)
        with torch.no_grad():
            for layer in self.cycle():
                layer.attention.out.weight.mul_(scale)
                for projection in layer.feedforward.last_projections():
                    projection.weight.mul_(scale)

    @property
    def has_memory(self) -> bool:
        """Whether a layer remembers the segment before."""
        return any(layer.attention.memory_size for layer in self.cycle())

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        state: ModelState | None = None,
        memory: Sequence[Tensor | None] | None = None,
    ) -> ModelOutput:
        """Logits of tokens (B, N); mask (B, N), True = valid; from ``state`` on if there is one.

        memory: what the model gave after the segment before; None: there was none.

        Raises:
            InvalidInput: an empty or too long sequence, two of mask, state and memory together, or
                a memory of another model.
            Unsupported: a state for a model that does not decode.
        """
        self._check(tokens, mask, state, memory)
        start = 0 if state is None else state.position
        stack = self._stack(tokens.shape[1], start, mask, state, memory)
        halted: Halted = self.halting(self.positions(self.embedding(tokens), start), stack, mask)
        logits = stack.answer(halted.x) if halted.logits is None else halted.logits
        after = None
        if state is not None:
            after = ModelState(start + tokens.shape[1], tuple(stack.states or ()))
        keeps = self.has_memory and mask is None and state is None
        return ModelOutput(
            logits,
            stack.losses | halted.aux,
            after,
            {"expected_depth": self._depth(halted.layers, mask, logits)},
            halted.exits,
            tuple(stack.memories) if keeps else None,
        )

    def _check(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        state: ModelState | None,
        memory: Sequence[Tensor | None] | None,
    ) -> None:
        if tokens.dim() != 2 or tokens.shape[1] == 0:
            message = f"tokens of shape (B, N) wanted, not {tuple(tokens.shape)}"
            raise InvalidInput([Problem("", message)])
        if state is not None and mask is not None:
            raise InvalidInput([Problem("", "tokens that continue a state cannot be masked")])
        if memory is None:
            return
        if state is not None or mask is not None:
            message = "tokens that follow a memory have neither mask nor state"
            raise InvalidInput([Problem("", message)])
        runs = self.arch.depth * self.arch.repeats
        if len(memory) != runs:
            message = f"a memory of {len(memory)} layers for a model that runs {runs}"
            raise InvalidInput([Problem("", message)])

    def _stack(
        self,
        length: int,
        start: int,
        mask: Tensor | None,
        state: ModelState | None,
        memory: Sequence[Tensor | None] | None,
    ) -> LayerStack:
        layers = list(self.cycle())
        like = self.embedding.weight
        return LayerStack(
            layers,
            repeats=self.arch.repeats,
            shared=self.shared,
            rotations=[
                self.positions.rotation(layer.attention.head_width, start, length, like)
                for layer in layers
            ],
            mask=mask,
            causal=self.causal,
            states=None if state is None else state.layers,
            memories=memory,
            checkpointing=self.arch.checkpointing,
            answer=lambda x: answer(x, self.norm, self.head, mask, pooled=self.pooled),
        )

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

    def _depth(self, layers: Tensor | None, mask: Tensor | None, like: Tensor) -> Tensor:
        """Layers executed for a valid token, mean."""
        if layers is None:
            return like.new_tensor(float(self.arch.depth * self.arch.repeats))
        valid = layers if mask is None else layers[mask]
        return valid.detach().float().mean()


def build_model(
    arch: Architecture,
    *,
    vocab_size: int,
    num_outputs: int,
    max_length: int,
    causal: bool,
    head: Head,
    dropout: float = 0.0,
) -> Transformer:
    """The module of an architecture, freshly initialised from PyTorch's random state.

    head: "token" for an output at every position, "pooled" for one from the mean over positions.
    dropout: of what each block adds to the stream, in training.

    Raises:
        InvalidArchitecture: it cannot stand in a causal slot.
        InvalidInput: ``dropout`` is not a probability below 1.
    """
    return Transformer(
        arch,
        vocab_size=vocab_size,
        num_outputs=num_outputs,
        max_length=max_length,
        causal=causal,
        head=head,
        dropout=dropout,
    )
