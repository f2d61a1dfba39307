"""What `make bench-mechanisms` measures, and how.

Shapes: B batch (1), N sequence, H heads, D width.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.references import LONGEST, REFERENCES, SDPA, SHORTEST, Reference
from nas.measure.memory import LiveBytes
from nas.models import build_attention
from search_spaces.attention import ATTENTION

D, H = 256, 4
REPEAT_SECONDS = 0.1  # a short pass is repeated within a round until this much CPU time is spent


@dataclass(frozen=True)
class Setting:
    """What a mechanism is measured with, and the N beyond which it is not.

    by_length: further settings, made from N.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    longest: int = LONGEST
    by_length: Callable[[int], Mapping[str, Any]] = lambda length: {}


SETTINGS: dict[str, Setting] = {
    "full": Setting(),
    "longformer": Setting({"window": 128, "globals": 0}),
    # windows grow from layer to layer; this is a layer whose window is that of the others
    "cascade": Setting({"window": 128}),
    "linformer": Setting({"rank": 256}),
    "nystromformer": Setting({"landmarks": 64}),
    "synthesizer": Setting({"variant": "dense"}, longest=4096),
    "performer": Setting({"features": 256}),
    "linear": Setting(),
    "reformer": Setting({"chunk": 64, "hashes": 4}),
    "gated_linear": Setting(),
    "sinkhorn": Setting({"block": 64}),
    "bigbird": Setting({"block": 64, "random": 3}),
    "blockbert": Setting(by_length=lambda length: {"blocks": -(-length // 64)}),
    "strided": Setting({"stride": 64}),
    "fixed": Setting({"block": 64}),
    "transformer_xl": Setting({"memory": 128}, longest=4096),
}

OURS = "ours"
PROJECTIONS = "the projections alone"


@dataclass(frozen=True)
class Subject:
    """A layer to be measured in one slot; ``implementation`` is OURS or a reference's name."""

    mechanism: str
    causal: bool
    implementation: str
    longest: int
    build: Callable[[int], nn.Module] = field(compare=False)
    shortest: int = SHORTEST


Point = tuple[Subject, int]


@dataclass
class Measured:
    """What was seen of a subject at one length: CPU seconds, and bytes alive at most."""

    seconds: float = float("inf")
    peak: int = 0
    rounds: int = 0


class Projections(nn.Module):
    """The projections of a layer, and nothing between them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) → (B, N, 3D) and (B, N, D)."""
        return self.qkv(x), self.out(x)


def _sdpa(causal: bool) -> Subject:
    def build(N: int) -> nn.Module:
        return SDPA.build(ours("full", N, causal))

    return Subject("full", causal, SDPA.name, LONGEST, build)


def ours(name: str, length: int, causal: bool) -> Any:
    """A layer of ours at its settings."""
    setting = SETTINGS[name]
    spec = {"type": name, **setting.spec, **setting.by_length(length)}
    return build_attention(spec, d_model=D, heads=H, max_length=length, causal=causal)


BASELINES = (
    Subject(PROJECTIONS, False, PROJECTIONS, LONGEST, lambda N: Projections()),
    _sdpa(False),
    _sdpa(True),
)
"""What is subtracted, then what others are compared with in the two slots."""


def subjects(names: Sequence[str]) -> list[Subject]:
    """All that is measured for these mechanisms: the baselines, ours, references.

    Raises:
        LookupError: a registered mechanism has no settings.
    """
    unset = [name for name in ATTENTION if name not in SETTINGS]
    if unset:
        raise LookupError(f"no settings in benchmarks/mechanism_runs.py for {', '.join(unset)}")
    found = list(BASELINES)
    for name in names:
        for causal in (False, True) if ATTENTION[name].causal else (False,):
            found.append(_ours(name, causal))
            found += [
                _theirs(name, reference, causal)
                for reference in REFERENCES.get(name, ())
                if reference is not SDPA and causal in reference.slots
            ]
    return found


def _ours(name: str, causal: bool) -> Subject:
    longest = SETTINGS[name].longest
    return Subject(name, causal, OURS, longest, lambda N: ours(name, N, causal))


def _theirs(name: str, reference: Reference, causal: bool) -> Subject:
    longest = min(reference.longest_in(causal), SETTINGS[name].longest)

    def build(N: int) -> nn.Module:
        return reference.build(ours(name, N, causal))

    return Subject(name, causal, reference.name, longest, build, reference.shortest)


def measure_all(points: Sequence[Point], rounds: int, seconds: float) -> dict[Point, Measured]:
    """Rounds over all points, each in a new random order, until there were enough or time is up."""
    results = {point: Measured() for point in points}
    began = time.monotonic()
    order = random.Random(0)
    for number in range(rounds):
        round_began = time.monotonic()
        shuffled = list(points)
        order.shuffle(shuffled)
        for point in shuffled:
            if time.monotonic() - began > seconds:
                print(f"stopped in round {number + 1}: time is up", file=sys.stderr)
                return results
            measure(point, results[point])
        took = time.monotonic() - round_began
        print(f"round {number + 1} of {rounds}: {took:.0f} s", file=sys.stderr, flush=True)
    return results


def measure(point: Point, seen: Measured) -> None:
    """One more round of a point; the first counts its memory besides."""
    run = one_pass(*point)
    if not seen.rounds:
        with LiveBytes() as live:
            run()
        seen.peak = live.peak
    spent = 0.0
    while spent < REPEAT_SECONDS:
        began = time.process_time()
        run()
        took = time.process_time() - began
        seen.seconds = min(seen.seconds, took)
        spent += took
    seen.rounds += 1


def one_pass(subject: Subject, length: int) -> Callable[[], None]:
    """A forward and a backward pass over one sequence, to be called any number of times."""
    torch.manual_seed(0)
    layer = subject.build(length)
    x = torch.randn(1, length, D, requires_grad=True)
    with torch.no_grad():
        shapes = [y.shape for y in _outputs(layer(x))]
    gradients = [torch.randn(shape) for shape in shapes]

    def run() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        torch.autograd.backward(_outputs(layer(x)), gradients)

    return run


def _outputs(y: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)
