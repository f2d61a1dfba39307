"""Latency: what one evaluation forward pass of a batch takes on this device, with one thread.

Everything is timed in rounds, each in another order, and the least of all rounds is kept: what a
shared machine adds is never negative.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.catalogue.tasks import TaskShape
from nas.costs import (
    ANY,
    Fit,
    LatencyTable,
    attention_key,
    attention_work,
    feedforward_key,
    feedforward_work,
    frame_key,
    frame_work,
)
from nas.models import build_model
from nas.models.transformer import Transformer
from search_spaces.architecture import Architecture, Layer

ROUNDS = 4
MAX_BLOCKS = 160
"""So many blocks are measured at most; the rest is estimated by the fits."""


def device_name(device: str = "cpu") -> str:
    """The hardware and what computes on it: latencies are compared within one name alone."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_cpu_model()}, torch {torch.__version__}, 1 thread"


def measure_table(
    architectures: Sequence[Architecture],
    shape: TaskShape,
    tokens: Tensor,
    mask: Tensor | None = None,
    *,
    alone: bool,
    seed: int = 0,
) -> LatencyTable:
    """Measure the blocks that these architectures are made of, and fit each mechanism.

    tokens (B, N) and mask (B, N) are the batch that passes through the models.
    alone: whether nothing else runs meanwhile, to be noted in the table.
    """
    rng = random.Random(seed)
    probes = _probes(architectures, rng)
    blocks: dict[str, float] = {}
    with _single_thread():
        models = [(probe, _build(probe, shape)) for probe in probes]
        for _ in range(ROUNDS):
            rng.shuffle(models)
            for probe, model in models:
                for key, milliseconds in _time_blocks(probe, model, tokens, mask).items():
                    blocks[key] = min(milliseconds, blocks.get(key, milliseconds))
    return LatencyTable(
        device=device_name(),
        batch_size=tokens.shape[0],
        sequence_length=shape.sequence_length,
        causal=shape.causal,
        alone=alone,
        blocks=blocks,
        fits=_fits(probes, blocks, shape, tokens.shape[0]),
    )


def random_tokens(shape: TaskShape, batch_size: int) -> Tensor:
    """A batch (B, N) of any tokens, for when there is no task: full length, none padded."""
    generator = torch.Generator().manual_seed(0)
    size = (batch_size, shape.sequence_length)
    return torch.randint(shape.vocab_size, size, generator=generator)


def measure_models(
    passes: Mapping[str, Callable[[], object]], *, rounds: int = 5, seconds: float = 20.0
) -> dict[str, float]:
    """Milliseconds of each forward pass, by name: the least over interleaved rounds.

    After the second round no new one begins when ``seconds`` have gone.
    """
    rng = random.Random(len(passes))
    names = list(passes)
    least: dict[str, float] = {}
    began = time.perf_counter()
    with _single_thread(), torch.inference_mode():
        for done in range(rounds + 1):
            if done > 2 and time.perf_counter() - began > seconds:
                break
            rng.shuffle(names)
            for name in names:
                started = time.perf_counter()
                passes[name]()
                milliseconds = 1e3 * (time.perf_counter() - started)
                if done:  # the first round warms up
                    least[name] = min(milliseconds, least.get(name, milliseconds))
    return least


@dataclass(frozen=True)
class _Probe:
    """A one-layer architecture in which two blocks and the frame around them are timed."""

    arch: Architecture

    @property
    def layer(self) -> Layer:
        return self.arch.layers[0]

    @property
    def attention(self) -> str:
        layer = self.layer
        return attention_key(layer.attention, self.arch.width, layer.heads, self.arch.position)

    @property
    def feedforward(self) -> str:
        return feedforward_key(self.layer.feedforward, self.arch.width)


def _probes(architectures: Sequence[Architecture], rng: random.Random) -> list[_Probe]:
    """One-layer architectures that hold every block once, or ``MAX_BLOCKS`` of them."""
    found: dict[str, _Probe] = {}
    blocks: set[str] = set()
    for arch in architectures:
        for i, layer in enumerate(arch.layers):
            here = layer.model_copy(update={"attention": layer.attention.at(i)})
            probe = _Probe(
                Architecture(
                    width=arch.width, layers=(here,), position=arch.position, norm=arch.norm
                )
            )
            if not {probe.attention, probe.feedforward} <= blocks:
                blocks |= {probe.attention, probe.feedforward}
                found[probe.attention + probe.feedforward] = probe
    probes = list(found.values())
    rng.shuffle(probes)
    return probes[:MAX_BLOCKS]


def _build(probe: _Probe, shape: TaskShape) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(
            probe.arch,
            vocab_size=shape.vocab_size,
            num_outputs=shape.num_outputs,
            max_length=shape.sequence_length,
            causal=shape.causal,
            head=shape.head,
        ).eval()


def _time_blocks(
    probe: _Probe, model: Transformer, tokens: Tensor, mask: Tensor | None
) -> dict[str, float]:
    """Milliseconds of the layer's attention, of the rest of the layer, and of the frame."""
    layer = model.get_submodule("layers.0")
    with _Clock(layer.get_submodule("attention"), layer) as clock, torch.inference_mode():
        started = time.perf_counter()
        model(tokens, mask)
        total = time.perf_counter() - started
    attention, whole = clock.seconds
    return {
        probe.attention: 1e3 * attention,
        probe.feedforward: 1e3 * (whole - attention),
        frame_key(probe.arch.width): 1e3 * (total - whole),
    }


class _Clock:
    """Times single calls of modules within a forward pass."""

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self.seconds = [0.0] * len(modules)

    def __enter__(self) -> _Clock:
        self._handles = []
        for i, module in enumerate(self._modules):
            before = module.register_forward_pre_hook(lambda *_, i=i: self._add(i, sign=-1))
            after = module.register_forward_hook(lambda *_, i=i: self._add(i, sign=1))
            self._handles += [before, after]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _add(self, i: int, sign: int) -> None:
        self.seconds[i] += sign * time.perf_counter()


def _fits(
    probes: Sequence[_Probe], blocks: Mapping[str, float], shape: TaskShape, batch_size: int
) -> dict[str, Fit]:
    """Each mechanism's milliseconds by GFLOPs and MB, relative errors counting equally."""
    rows: dict[str, list[tuple[tuple[float, float], float]]] = {}
    length, causal = shape.sequence_length, shape.causal
    for probe in probes:
        width, layer = probe.arch.width, probe.layer
        for name, key, work in (
            (
                layer.attention.type,
                probe.attention,
                attention_work(layer.attention, width, layer.heads, batch_size, length, causal),
            ),
            (
                layer.feedforward.type,
                probe.feedforward,
                feedforward_work(layer.feedforward, width, batch_size, length, causal),
            ),
            ("frame", frame_key(width), frame_work(width, batch_size, length)),
        ):
            rows.setdefault(name, []).append((work, blocks[key]))
            rows.setdefault(ANY, []).append((work, blocks[key]))
    return {name: _fit(points) for name, points in rows.items()}


def _fit(points: Sequence[tuple[tuple[float, float], float]]) -> Fit:
    from scipy.optimize import nnls

    target = np.array([milliseconds for _, milliseconds in points])
    terms: NDArray[np.float64] = np.array([[1.0, *work] for work, _ in points])
    weights, _ = nnls(terms / target[:, None], np.ones(len(points)))
    return float(weights[0]), float(weights[1]), float(weights[2])


@contextmanager
def _single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no such file outside Linux
    return platform.processor() or platform.machine()
