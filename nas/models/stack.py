"""The layers of a model at work on one batch.

Shapes: B batch, N sequence, D width, M positions of a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nas.models.attention.base import Shared, key_mask
from nas.models.positions import Rotation
from nas.models.replay import Tape, recording, replaying
from nas.models.residual.base import Context, Ran, ResidualLayer


class LayerStack:
    """All layers, ``repeats`` times over (see ``nas.models.halting.base.Stack``).

    states: of each run, None when nothing is decoded.  memories: of each run, None at a start.
    """

    def __init__(
        self,
        layers: Sequence[ResidualLayer],
        *,
        repeats: int,
        shared: Shared,
        rotations: Sequence[Rotation | None],
        mask: Tensor | None,
        causal: bool,
        states: Sequence[Any] | None,
        memories: Sequence[Tensor | None] | None,
        checkpointing: bool,
        answer: Callable[[Tensor], Tensor],
    ) -> None:
        self.runs = [layer for _ in range(repeats) for layer in layers]
        self.depth = len(layers)
        self.shared = shared
        self.states = None if states is None else list(states)
        before: Sequence[Tensor | None] = memories or [None] * len(self.runs)
        padding, seen = key_mask(mask, causal=False), key_mask(mask, causal)
        self.contexts = [
            Context(padding, seen, rotations[i % self.depth], memory)
            for i, memory in enumerate(before)
        ]
        self.memories: list[Tensor | None] = []
        self.losses: dict[str, Tensor] = {}
        self.checkpointing = checkpointing
        self.answer = answer
        self._next = 0

    def all(self, x: Tensor) -> Tensor:
        """All layers of all cycles, (B, N, D) → (B, N, D)."""
        kind = self.runs[0]
        stream = kind.enter(x)
        del x
        if self.states is not None or self._checkpoints():
            while self._next < len(self.runs):
                stream = self._run(stream)
            return kind.leave(stream)
        stream, rest = kind.through(self.runs, stream, self.contexts, self.shared)
        for ran in rest:
            self._note(ran)
        return kind.leave(stream)

    def cycle(self, x: Tensor, active: Tensor | None) -> Tensor:
        """The next cycle; positions not ``active`` (B, N) keep their x in every layer."""
        for _ in range(self.depth):
            x = self.layer(x, active)
        return x

    def layer(self, x: Tensor, active: Tensor | None) -> Tensor:
        """The next layer, in the same manner."""
        y: Tensor = self._run(x)
        return y if active is None else torch.where(active.unsqueeze(-1), y, x)

    def absorb_rest(self, x: Tensor) -> None:
        """Let the layers that are not run see the final ``x``, for tokens still to come."""
        for i in range(self._next, len(self.runs)):
            layer, context = self.runs[i], self.contexts[i]
            if self.states is not None:
                self.states[i] = layer.absorb(x, self.states[i], context.rotation)
            else:
                self.memories.append(layer.remember(x, context.memory))

    def _run(self, stream: Any) -> Any:
        i = self._next
        layer, context = self.runs[i], self.contexts[i]
        self._next += 1
        if self.states is not None:
            stream, self.states[i] = layer.extend(stream, self.states[i], context.rotation)
            return stream
        ran = (
            _checkpointed(layer, stream, context) if self._checkpoints() else layer(stream, context)
        )
        self._note(ran)
        return ran.stream

    def _note(self, ran: Ran) -> None:
        """Gather what a run gave beside the stream: the losses of one name are summed."""
        i = len(self.memories)
        self.memories.append(ran.memory)
        name = self.runs[i].feedforward.auxiliary
        if name is not None and ran.loss is not None:
            before = self.losses.get(name)
            self.losses[name] = ran.loss if before is None else before + ran.loss

    def _checkpoints(self) -> bool:
        if torch.compiler.is_exporting():
            return False
        return self.checkpointing and torch.is_grad_enabled() and self.states is None


def _checkpointed(layer: ResidualLayer, stream: Tensor, context: Context) -> Ran:
    """The layer, of which only the input is kept; random numbers and choices are the same again."""
    tape: Tape = []

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return recording(tape), replaying(tape)

    ran: Ran = checkpoint(layer, stream, context, use_reentrant=False, context_fn=contexts)
    return ran
