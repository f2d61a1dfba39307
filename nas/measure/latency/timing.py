"""Timing on a shared machine: one pinned thread, shuffled rounds, an anchor around every pass.

Seconds are CPU seconds of the one thread that computes: what they are on an idle core they are on
a busy one, save for what others take of its caches. That, and a drift of the clock, is divided
out by what a model that never changes, the anchor, takes just before and just after.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import psutil
import torch

from nas.models import build_model
from search_spaces.architecture import Architecture

ROUNDS = 5
BUSY_CORES = 0.3
"""Of other processes: with less at work a measurement counts as alone."""

_ANCHOR_LENGTH, _ANCHOR_BATCH = 256, 4


N = TypeVar("N", bound=Hashable)


@dataclass(frozen=True)
class Rounds(Generic[N]):
    """What each pass took in each round.

    milliseconds: in the state of the machine in which the anchor takes ``anchor_ms``, its lower
    decile.  raw: as they were.  alone: whether nothing else ran meanwhile.
    """

    milliseconds: dict[N, list[float]]
    raw: dict[N, list[float]]
    anchor_ms: float
    alone: bool

    def medians(self) -> dict[N, float]:
        """Of each pass."""
        return {name: statistics.median(found) for name, found in self.milliseconds.items()}


def time_rounds(
    passes: Mapping[N, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    seconds: float = 20.0,
    seed: int = 0,
) -> Rounds[N]:
    """Run every pass once a round, each round in another order; the first one only warms up.

    After the second round no new one begins when ``seconds`` have gone.
    """
    rng = random.Random(seed)
    names = list(passes)
    raw: dict[N, list[float]] = {name: [] for name in names}
    anchors: dict[N, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    with one_core() as company, torch.inference_mode():
        anchor = _anchor()
        for done in range(rounds + 1):
            if done > 2 and time.perf_counter() - began > seconds:
                break
            rng.shuffle(names)
            before = _milliseconds(anchor)
            for name in names:
                taken = _milliseconds(passes[name])
                after = _milliseconds(anchor)
                if done:
                    raw[name].append(taken)
                    anchors[name].append((before + after) / 2)
                before = after
    best = _lower_decile([ms for found in anchors.values() for ms in found])
    scaled = {
        name: [ms * best / anchor for ms, anchor in zip(raw[name], anchors[name], strict=True)]
        for name in names
    }
    return Rounds(scaled, raw, best, company.alone)


def measure_models(
    passes: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS, seconds: float = 20.0
) -> dict[str, float]:
    """Milliseconds of each forward pass, by name: the median over interleaved rounds."""
    return time_rounds(passes, rounds=rounds, seconds=seconds).medians()


@dataclass
class Company:
    """Whether others were at work beside us; known when the measurement is over."""

    alone: bool = False


@contextmanager
def one_core() -> Iterator[Company]:
    """Compute with one thread on one core: the one that is least busy, where the system lets us."""
    threads = torch.get_num_threads()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    company = Company()
    torch.set_num_threads(1)
    if allowed is not None:
        os.sched_setaffinity(0, {_idlest(allowed)})
    wall, own, busy = time.perf_counter(), time.process_time(), _busy_seconds()
    try:
        yield company
    finally:
        others = _busy_seconds() - busy - (time.process_time() - own)
        company.alone = others < BUSY_CORES * (time.perf_counter() - wall)
        if allowed is not None:
            os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


def _idlest(cores: set[int]) -> int:
    busy = psutil.cpu_percent(interval=0.1, percpu=True)
    known = [core for core in cores if core < len(busy)]
    return min(known, key=lambda core: busy[core], default=min(cores))


def _busy_seconds() -> float:
    """Of all cores and processes since the machine began."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # guests are counted in user and nice as well
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return 1e3 * (time.thread_time() - started)


def _lower_decile(values: list[float]) -> float:
    return sorted(values)[len(values) // 10] if values else 1.0


@lru_cache(maxsize=1)
def _anchor() -> Callable[[], object]:
    """A pass of a small model: products, a softmax and elementwise work, some milliseconds."""
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 4}
    arch = Architecture.model_validate(
        {"width": 64, "position": "none", "layers": [layer, layer], "norm": "layer_norm"}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(
            arch,
            vocab_size=256,
            num_outputs=256,
            max_length=_ANCHOR_LENGTH,
            causal=True,
            head="token",
        ).eval()
        tokens = torch.randint(256, (_ANCHOR_BATCH, _ANCHOR_LENGTH))
    return lambda: model(tokens)
