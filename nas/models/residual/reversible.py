"""Reversible layers (Gomez et al. 2017), and all layers of a model as one differentiable function.

The plain form of that function is ``ResidualLayer.through``. What is rebuilt differs from what was
by rounding: in fp32 about 1e-6 over tens of layers; under bf16 autocast the streams stay fp32.

Shapes: B batch, N sequence, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas.models.attention.base import Shared
from nas.models.positions import Rotation
from nas.models.replay import Tape, recording, replaying
from nas.models.residual.base import Context, Ran, ResidualLayer
from search_spaces.residual.reversible import Reversible

Pair: TypeAlias = tuple[Tensor, Tensor]
Gradients: TypeAlias = list[Tensor | None]


class ReversibleLayer(ResidualLayer, spec=Reversible):
    """y₁ = x₁ + attention(norm(x₂)); y₂ = x₂ + feedforward(norm(y₁))."""

    @staticmethod
    def enter(x: Tensor) -> Pair:
        """Both streams begin alike."""
        return x, x

    @staticmethod
    def leave(stream: Pair) -> Tensor:
        """Their mean."""
        return (stream[0] + stream[1]) / 2

    def forward(self, stream: Pair, context: Context) -> Ran:
        """Twice (B, N, D) → twice (B, N, D)."""
        x1, x2 = stream
        y, memory = self.mix(x2, context)
        y1 = x1 + y
        del y  # before the second block takes memory of its own
        y, loss = self.feed(y1, context.mask)
        return Ran((y1, x2 + y), loss, memory)

    @classmethod
    def through(
        cls,
        layers: Sequence[ResidualLayer],
        stream: Pair,
        contexts: Sequence[Context],
        shared: Shared,
    ) -> tuple[Pair, list[Ran]]:
        """All layers; where gradients are wanted, without keeping what lies between them."""
        if torch.compiler.is_exporting() or not torch.is_grad_enabled():
            return super().through(layers, stream, contexts, shared)
        program = _Program(layers, contexts, shared, stream[0].device)
        y1, y2, losses = _apply(program, *stream, *program.parameters)
        given = iter(losses.unbind())
        rest = [
            Ran(None, next(given) if has_loss else None, memory)
            for has_loss, memory in zip(program.has_loss, program.memories, strict=True)
        ]
        program.memories.clear()
        return (y1, y2), rest

    def extend(
        self, stream: Pair, state: Any, rotation: Rotation | None = None
    ) -> tuple[Pair, Any]:
        """The same for N more tokens after ``state``, and the state after them."""
        x1, x2 = stream
        attention, feedforward = state
        y, attention = self._extend_mix(x2, attention, rotation)
        y1 = x1 + y
        y, feedforward = self._extend_feed(y1, feedforward)
        return (y1, x2 + y), (attention, feedforward)

    def absorb(self, stream: Pair, state: Any, rotation: Rotation | None = None) -> Any:
        """The state after N more tokens."""
        return self.extend(stream, state, rotation)[1]


class _Block(nn.Module):
    """One block of a layer with all that it may read, for ``functional_call``."""

    def __init__(self, run: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.parts = nn.ModuleList(parts)

    def forward(self, *arguments: Any) -> Any:
        return self.run(*arguments)


class _Program:
    """Which layers are run on what, and what of it has to happen again in the backward pass."""

    def __init__(
        self,
        layers: Sequence[ResidualLayer],
        contexts: Sequence[Context],
        shared: Shared,
        device: torch.device,
    ) -> None:
        self.layers = layers
        self.contexts = contexts
        self.device = device
        self.autocast = torch.is_autocast_enabled(device.type)
        self.dtype = torch.get_autocast_dtype(device.type)
        self.memories: list[Tensor | None] = []
        self.has_loss: list[bool] = []
        self.tapes: list[Tape] = []
        self.random: list[tuple[Tensor, ...]] = []
        known: dict[int, int] = {}
        self.parameters: list[Tensor] = []
        for module in (*layers, shared):
            for parameter in module.parameters():
                if id(parameter) not in known:
                    known[id(parameter)] = len(self.parameters)
                    self.parameters.append(parameter)
        self._mixers = {layer: _mixer(layer, shared) for layer in layers}
        self._feeders = {layer: _feeder(layer, shared) for layer in layers}
        # in a functional call these are not the modules' own, so they are remembered by number
        self._numbers = {
            block: {name: known[id(p)] for name, p in block.named_parameters()}
            for block in (*self._mixers.values(), *self._feeders.values())
        }

    @contextmanager
    def precision(self) -> Iterator[None]:
        """As the forward pass was; a weight cast here without gradients must serve nobody else."""
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.autocast, cache_enabled=False
        ):
            yield

    @contextmanager
    def first_time(self) -> Iterator[None]:
        """Note what the next block draws and chooses."""
        states = [torch.get_rng_state()] if self.layers[0].training else []
        if states and self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        self.random.append(tuple(states))
        self.tapes.append([])
        with recording(self.tapes[-1]):
            yield

    @contextmanager
    def again(self, block: int) -> Iterator[None]:
        """Draw and choose as that block did."""
        states = self.random[block]
        cuda = len(states) > 1
        with ExitStack() as stack:
            stack.enter_context(self.precision())
            stack.enter_context(replaying(self.tapes[block]))
            if states:
                devices = [self.device] if cuda else []
                stack.enter_context(torch.random.fork_rng(devices=devices))
                torch.set_rng_state(states[0])
            if cuda:
                torch.cuda.set_rng_state(states[1], self.device)
            yield

    def mix_again(self, run: int, x: Tensor, weights: Sequence[Tensor]) -> _Again:
        """The first block of a run."""
        block = self._mixers[self.layers[run]]
        leaf = x.detach().requires_grad_()
        known = {name: weights[i] for name, i in self._numbers[block].items()}
        with torch.enable_grad(), self.again(2 * run):
            y, _ = torch.func.functional_call(block, known, (leaf, self.contexts[run]))
        return _Again(leaf, y, None, self._numbers[block], weights)

    def feed_again(self, run: int, x: Tensor, weights: Sequence[Tensor]) -> _Again:
        """The second block of a run."""
        block = self._feeders[self.layers[run]]
        leaf = x.detach().requires_grad_()
        known = {name: weights[i] for name, i in self._numbers[block].items()}
        with torch.enable_grad(), self.again(2 * run + 1):
            y, loss = torch.func.functional_call(block, known, (leaf, self.contexts[run].mask))
        return _Again(leaf, y, loss, self._numbers[block], weights)


class _Again:
    """A block that was computed again, with its graph."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        loss: Tensor | None,
        numbers: Mapping[str, int],
        weights: Sequence[Tensor],
    ) -> None:
        self.y = y.detach()
        self._x, self._y, self._loss = x, y, loss
        self._numbers = [i for i in numbers.values() if weights[i].requires_grad]
        self._weights = weights

    def backward(self, grad: Tensor, grad_loss: Tensor | None, into: Gradients) -> Tensor:
        """The gradient of the block's input; those of its weights are added to ``into``."""
        ends, begins = [self._y], [grad.to(self._y.dtype)]
        if self._loss is not None and grad_loss is not None and self._loss.requires_grad:
            ends.append(self._loss)
            begins.append(grad_loss.to(self._loss.dtype))
        inputs = [self._x, *(self._weights[i] for i in self._numbers)]
        dx, *found = torch.autograd.grad(ends, inputs, begins, allow_unused=True)
        for i, gradient in zip(self._numbers, found, strict=True):
            before = into[i]
            if gradient is not None:
                into[i] = gradient if before is None else before + gradient
        return dx if dx is not None else torch.zeros_like(self._x)


def _mixer(layer: ResidualLayer, shared: Shared) -> _Block:
    return _Block(layer.mix, layer.attention_norm, layer.attention, shared)


def _feeder(layer: ResidualLayer, shared: Shared) -> _Block:
    return _Block(layer.feed, layer.feedforward_norm, layer.feedforward, shared)


class _Through(Function):
    """(x₁, x₂, parameters) → (y₁, y₂, auxiliary losses (R,) of the runs that have one)."""

    @staticmethod
    def forward(
        ctx: Any, program: _Program, x1: Tensor, x2: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses = []
        with program.precision():
            for layer, context in zip(program.layers, program.contexts, strict=True):
                with program.first_time():
                    y, memory = layer.mix(x2, context)
                x1 = x1 + y
                del y
                with program.first_time():
                    y, loss = layer.feed(x1, context.mask)
                x2 = x2 + y
                del y
                program.memories.append(memory)
                program.has_loss.append(loss is not None)
                if loss is not None:
                    losses.append(loss)
        ctx.program = program
        ctx.save_for_backward(x1, x2, *parameters)
        return x1, x2, torch.stack(losses) if losses else x1.new_zeros(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d1: Tensor, d2: Tensor, d_losses: Tensor) -> tuple[Any, ...]:
        program: _Program = ctx.program
        y1, y2, *parameters = ctx.saved_tensors
        weights = [p.detach().requires_grad_(p.requires_grad) for p in parameters]
        into: Gradients = [None] * len(weights)
        later = list(d_losses.unbind())
        for run in reversed(range(len(program.layers))):
            again = program.feed_again(run, y1, weights)
            y2 = y2 - again.y
            d_loss = later.pop() if program.has_loss[run] else None
            d1 = d1 + again.backward(d2, d_loss, into)
            del again
            again = program.mix_again(run, y2, weights)
            y1 = y1 - again.y
            d2 = d2 + again.backward(d1, None, into)
            del again
        return None, d1, d2, *into


_apply: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Through.apply
