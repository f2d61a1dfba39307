"""A device's latency table: a regression for each part, on what whole random models took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.catalogue.tasks import TaskShape
from nas.latency.table import Fit, Fits, LatencyTable
from nas.latency.terms import Mode, Part, Work, names, parts, work_of
from nas.measure.latency.device import device_name
from nas.measure.latency.probes import Probe, choose, observed
from nas.measure.latency.timing import Rounds, one_core, time_rounds
from search_spaces.architecture import Architecture

SECONDS = 100.0
"""A calibration takes about so long at most, on a machine that lets it run."""
PATIENCE = 2.0
ROUNDS = 3
"""Few: a regression gains more from other models than from the same ones again."""
FOLDS = 8
RIDGE = 3e-3
"""How far a coefficient is drawn to 0, as a share of its own column's weight."""
KINSHIP = 0.03
"""So many observations is it worth what a part's kind takes: rare parts lean on it."""
QUANTILES = (0.05, 0.95)
LEAST_EXPECTED = 0.5
"""When errors are weighed, a part is expected to take at least this share of what it took."""
MOST_PARAMETERS = 2e8
"""Probes are held in memory together."""

Floats: TypeAlias = NDArray[np.float64]
Timed: TypeAlias = Rounds[tuple[Mode, int]]
"""Of each mode the probes by number."""


@dataclass(frozen=True)
class Observation:
    """What one probe took: its parts, the milliseconds of each, and of all together."""

    arch: Architecture
    parts: list[Part]
    milliseconds: list[float]

    @property
    def total(self) -> float:
        """Of the whole model."""
        return sum(self.milliseconds)


def measure_table(
    architectures: Sequence[Architecture],
    shape: TaskShape,
    tokens: Tensor,
    mask: Tensor | None = None,
    *,
    seed: int = 0,
    seconds: float = SECONDS,
) -> LatencyTable:
    """Calibrate this device for what these architectures are made of.

    tokens (B, N) and mask (B, N) are the batch that passes through the models; where they decode,
    single steps after its first sequence are timed as well.
    """
    batch = tokens.shape[0]
    modes: tuple[Mode, ...] = ("pass", "step") if shape.decodes else ("pass",)

    def made(mode: Mode) -> Iterator[Probe]:
        return (Probe(a, shape, mode, tokens, mask) for a in choose(architectures, seed))

    with one_core():
        probes = {mode: _timely(made(mode), seconds / len(modes)) for mode in modes}
    passes = {(mode, i): probe for mode in modes for i, probe in enumerate(probes[mode])}
    rounds = time_rounds(passes, rounds=ROUNDS, seconds=seconds, seed=seed)
    widths = reach(architectures)
    return LatencyTable(
        device=device_name(),
        shape=shape,
        batch_size=batch,
        alone=rounds.alone,
        anchor_ms=rounds.anchor_ms,
        modes={
            mode: fit(_observations(probes[mode], rounds, work_of(shape, batch, mode)), widths)
            for mode in modes
        },
    )


def _timely(made: Iterable[Probe], seconds: float) -> list[Probe]:
    """As many probes as can be made and timed in so many seconds, as their first calls tell.

    The seconds are of this thread alone; where others take its core away, ``PATIENCE`` times as
    many may go by.
    """
    probes: list[Probe] = []
    began, wall = time.thread_time(), time.perf_counter()
    called = parameters = 0.0
    for probe in made:
        started = time.thread_time()
        with torch.inference_mode():
            probe()
        now = time.thread_time()
        called += now - started
        probes.append(probe)
        parameters += sum(p.numel() for p in probe.model.parameters())
        # once more to warm up, then the rounds
        enough = now - began + (1 + ROUNDS) * called > seconds
        late = time.perf_counter() - wall > PATIENCE * seconds
        if enough or late or parameters > MOST_PARAMETERS:
            break
    return probes


def _observations(probes: Sequence[Probe], rounds: Timed, work: Work) -> list[Observation]:
    """The median over rounds of each part, in the anchor's best state."""
    found = []
    for i, probe in enumerate(probes):
        name = work.mode, i
        raw, scaled = np.array(rounds.raw[name]), np.array(rounds.milliseconds[name])
        seen = np.array(observed(probe, rounds.raw[name]))
        each = np.median(seen * (scaled / raw)[:, None], axis=0)
        found.append(Observation(probe.arch, parts(probe.arch, work), each.tolist()))
    return found


def reach(architectures: Iterable[Architecture]) -> dict[str, tuple[int, int]]:
    """Least and greatest width at which each part stands in these architectures."""
    found: dict[str, tuple[int, int]] = {}
    for arch in architectures:
        for name in names(arch):
            low, high = found.get(name, (arch.width, arch.width))
            found[name] = min(low, arch.width), max(high, arch.width)
    return found


def fit(observations: Sequence[Observation], widths: Mapping[str, tuple[int, int]]) -> Fits:
    """A non-negative least-squares fit of each part's relative errors, and how far all hold.

    Errors are first relative to what was measured, then to what that fit expects: the former alone
    would trust what happened to take little, and predict too little.
    """
    first = _solved(_equations(observations), widths)
    every = [_equations([o], first) for o in observations]
    whole = _summed(every)
    held_out = []
    for fold in range(min(FOLDS, len(every))):
        rest = _summed([e for i, e in enumerate(every) if i % FOLDS != fold])
        fits = _solved(rest, widths)
        held_out += [
            o.total / sum(fits.of(p.name).milliseconds(p) for p in o.parts)
            for i, o in enumerate(observations)
            if i % FOLDS == fold and all(p.name.partition(" ")[0] in fits.kinds for p in o.parts)
        ]
    if not held_out:  # one probe alone: what was not tested is not known
        return _solved(whole, widths)
    low, high = np.quantile(held_out, QUANTILES)
    error = float(np.mean(np.abs(1 / np.array(held_out) - 1)))
    update = {"low": float(low), "high": float(high), "relative_error": error}
    return _solved(whole, widths).model_copy(update=update)


_Equations: TypeAlias = dict[str, tuple[Floats, Floats]]


def _equations(observations: Iterable[Observation], expected: Fits | None = None) -> _Equations:
    """Normal equations of each part, all rows over what is expected, or over what was measured."""
    found: _Equations = {}
    for observation in observations:
        for part, taken in zip(observation.parts, observation.milliseconds, strict=True):
            milliseconds = scale = max(taken, 1e-6)
            if expected is not None:
                foreseen = expected.of(part.name).milliseconds(part)
                scale = max(foreseen, LEAST_EXPECTED * milliseconds)
            row = part.runs * np.array(part.terms) / scale
            gram, target = found.get(part.name, (0.0, 0.0))
            found[part.name] = gram + np.outer(row, row), target + row * (milliseconds / scale)
    return found


def _summed(every: Iterable[_Equations]) -> _Equations:
    found: _Equations = {}
    for equations in every:
        for name, (gram, target) in equations.items():
            before = found.get(name, (0.0, 0.0))
            found[name] = before[0] + gram, before[1] + target
    return found


def _solved(equations: _Equations, widths: Mapping[str, tuple[int, int]]) -> Fits:
    """The fits of all parts, each drawn a little to that of its kind."""
    pooled = _summed({name.partition(" ")[0]: both} for name, both in equations.items())
    spans = list(widths.values())
    anywhere = min(low for low, _ in spans), max(high for _, high in spans)
    kinds = {name: _fit(*both, anywhere) for name, both in pooled.items()}
    parts = {}
    for name, both in equations.items():
        kind = name.partition(" ")[0]
        prior = _opinion(pooled[kind], kinds[kind])
        parts[name] = _fit(*both, widths.get(name, anywhere), prior)
    return Fits(parts=parts, kinds=kinds, low=0.5, high=2.0, relative_error=1.0)


def _opinion(pooled: tuple[Floats, Floats], kind: Fit) -> tuple[Floats, Floats]:
    """Equations of ``KINSHIP`` observations like those of a kind that take what its fit says."""
    gram, target = pooled
    weights = np.array(kind.weights)
    observations = max(float(target @ weights), 1.0)  # each row times the weights is about 1
    share = KINSHIP / observations
    return share * gram, share * (gram @ weights)


def _fit(
    gram: Floats,
    target: Floats,
    widths: tuple[int, int],
    prior: tuple[Floats, Floats] | None = None,
) -> Fit:
    more = prior or (np.zeros_like(gram), np.zeros_like(target))
    return Fit(
        weights=tuple(_non_negative(gram + more[0], target + more[1]).tolist()),
        gram=tuple(tuple(row) for row in gram.tolist()),
        target=tuple(target.tolist()),
        widths=widths,
    )


def _non_negative(gram: Floats, target: Floats) -> Floats:
    """Of all w ≥ 0 the least wᵀGw - 2wᵀc + ridge · Σ G_ii w_i²."""
    from scipy.optimize import nnls

    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = 1.0
    normed = gram / np.outer(scale, scale) + RIDGE * np.eye(len(gram))
    values, vectors = np.linalg.eigh(normed)
    root = np.sqrt(np.clip(values, RIDGE / 2, None))
    weights, _ = nnls((vectors * root).T, vectors.T @ (target / scale) / root)
    return np.asarray(weights / scale)


def merged(known: LatencyTable, newer: LatencyTable) -> LatencyTable:
    """What two calibrations of a device, for the same shape of work, have found together."""
    newer = newer.at_anchor(known.anchor_ms)
    modes = {mode: _merged(fits, newer.modes[mode]) for mode, fits in known.modes.items()}
    return known.model_copy(update={"modes": modes, "alone": known.alone and newer.alone})


def _merged(known: Fits, newer: Fits) -> Fits:
    """Their equations together; of their errors the greater."""
    equations = _summed(
        {name: (np.array(f.gram), np.array(f.target)) for name, f in fits.parts.items()}
        for fits in (known, newer)
    )
    widths = known.parts_widths()
    for name, (low, high) in newer.parts_widths().items():
        before = widths.get(name, (low, high))
        widths[name] = min(low, before[0]), max(high, before[1])
    update = {
        "low": min(known.low, newer.low),
        "high": max(known.high, newer.high),
        "relative_error": max(known.relative_error, newer.relative_error),
    }
    return _solved(equations, widths).model_copy(update=update)
