"""Whole random models in which every block is timed where it stands, and the frame around them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.catalogue.tasks import TaskShape
from nas.latency.terms import Mode, names
from nas.models import build_model
from nas.models.transformer import Transformer
from search_spaces.architecture import Architecture, problems

OBSERVATIONS = 8
"""So many probes hold each part, where the pool has as many and time allows."""
LEAST_PROBES = 48
NEVER_HALTS = -30.0
"""A bias below which no unit lets anything halt: what is predicted is that all layers run."""

_FRACTIONS = ((1, 2), (1, 1), (2, 1))


def choose(pool: Sequence[Architecture], seed: int) -> Iterator[Architecture]:
    """Architectures of the pool, those first that hold a part that few before them held."""
    shuffled = list(pool)
    random.Random(f"probes:{seed}").shuffle(shuffled)
    named = [(arch, set(names(arch))) for arch in shuffled]
    held: Counter[str] = Counter()
    chosen = 0
    for wanted in range(1, OBSERVATIONS + 1):
        left = []
        for arch, own in named:
            if any(held[name] < wanted for name in own):
                held.update(own)
                chosen += 1
                yield _short(arch)
            else:
                left.append((arch, own))
        named = left
    for arch, _ in named[: max(0, LEAST_PROBES - chosen)]:
        yield _short(arch)


def _short(arch: Architecture) -> Architecture:
    """The same with as few cycles as its halting allows, two at least if it has more than one:
    further ones take time and tell nothing new."""
    fits = type(arch.halting).fits
    cycles = next(r for r in range(min(2, arch.repeats), arch.repeats + 1) if fits(arch.depth, r))
    return arch.model_copy(update={"repeats": cycles})


def around(
    architectures: Sequence[Architecture], causal: bool, count: int, seed: int = 0
) -> list[Architecture]:
    """These architectures and so many variants: other widths, heads and hyperparameters."""
    rng = random.Random(f"around:{seed}")
    found = list(architectures)
    for _ in range(20 * count):
        if len(found) >= count + len(architectures):
            break
        variant = _variant(rng.choice(architectures), rng)
        if not problems(variant, causal=causal):
            found.append(variant)
    return found


def _variant(arch: Architecture, rng: random.Random) -> Architecture:
    times, over = rng.choice(_FRACTIONS)
    layers = tuple(
        layer.model_copy(
            update={
                "attention": _redrawn(layer.attention, rng),
                "feedforward": _redrawn(layer.feedforward, rng),
            }
        )
        for layer in arch.layers
    )
    return arch.model_copy(update={"width": arch.width * times // over, "layers": layers})


def _redrawn(spec: Any, rng: random.Random) -> Any:
    """The mechanism with about half of its hyperparameters drawn anew."""
    domains = type(spec).hyperparameters().items()
    update = {name: rng.choice(domain.values) for name, domain in domains if rng.random() < 0.5}
    return spec.model_copy(update=update)


class Probe:
    """A model with a stopwatch in every block; what is timed is the probe itself, called.

    That passes the batch, or makes one step of its first sequence after all of it.
    seen: of each call, the milliseconds of each part in the order of ``parts`` but for the frame.
    """

    def __init__(
        self,
        arch: Architecture,
        shape: TaskShape,
        mode: Mode,
        tokens: Tensor,
        mask: Tensor | None = None,
    ) -> None:
        self.arch = arch
        self.seen: list[list[float]] = []
        self.model = build_probe(arch, shape)
        blocks = ("mix", "feed") if mode == "pass" else ("_extend_mix", "_extend_feed")
        self._call = (
            partial(self.model, tokens, mask) if mode == "pass" else stepper(self.model, tokens)
        )
        self._watches = [_Stopwatch(layer, name) for layer in self.model.cycle() for name in blocks]

    def __call__(self) -> None:
        """Once more."""
        self._call()
        self.seen.append([watch.take() for watch in self._watches])


def stepper(model: Transformer, tokens: Tensor) -> Callable[[], object]:
    """One decoding step of the first sequence of (B, N) tokens, the last of which comes now."""
    with torch.inference_mode():
        state = model.init_state(1)
        if tokens.shape[1] > 1:
            state = model(tokens[:1, :-1], state=state).state
    return lambda: model.step(tokens[:1, -1], state)


def build_probe(arch: Architecture, shape: TaskShape) -> Transformer:
    """A fresh model that runs all of its layers, whatever its halting would decide."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(
            arch,
            vocab_size=shape.vocab_size,
            num_outputs=shape.num_outputs,
            max_length=shape.sequence_length,
            causal=shape.causal,
            head=shape.head,
        ).eval()
    unit = getattr(model.halting, "unit", None)
    if isinstance(unit, nn.Linear):
        nn.init.constant_(unit.bias, NEVER_HALTS)
    return model


class _Stopwatch:
    """Stands in for a method of a module and adds up the CPU milliseconds of its calls."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._call: Callable[..., Any] = getattr(module, name)
        self._seconds = 0.0
        setattr(module, name, self)

    def __call__(self, *arguments: Any) -> Any:
        started = time.thread_time()
        result = self._call(*arguments)
        self._seconds += time.thread_time() - started
        return result

    def take(self) -> float:
        """Milliseconds since the last taking."""
        taken, self._seconds = 1e3 * self._seconds, 0.0
        return taken


def random_tokens(shape: TaskShape, batch_size: int) -> Tensor:
    """A batch (B, N) of any tokens, for when there is no task: full length, none padded."""
    generator = torch.Generator().manual_seed(0)
    size = (batch_size, shape.sequence_length)
    return torch.randint(shape.vocab_size, size, generator=generator)


def observed(probe: Probe, totals: Sequence[float]) -> list[list[float]]:
    """Of the last so many calls the milliseconds of all parts: the frame, what is left, last."""
    calls = zip(probe.seen[-len(totals) :], totals, strict=True)
    return [[*seen, total - sum(seen)] for seen, total in calls]
