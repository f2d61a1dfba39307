"""What one device takes for each term of each part: predictions, how far they hold, corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from nas.catalogue.tasks import TaskShape
from nas.latency.terms import Mode, Part, Work, names, parts, work_of
from search_spaces.architecture import Architecture

METRIC: Mapping[Mode, str] = {"pass": "latency_ms", "step": "step_latency_ms"}

TRUST = 0.25
"""Variance of one measurement over the variance that a part's own error is expected to have."""


class Measured(NamedTuple):
    """Milliseconds of an architecture, all of whose layers were run."""

    architecture: Architecture
    milliseconds: float


class Fit(BaseModel):
    """Milliseconds per term of a part, and the normal equations that they solve.

    gram, target: sums over observations of r rᵀ and r y, r and y being the terms and the
    milliseconds, both over what was expected of them.
    widths: least and greatest D among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    weights: tuple[float, ...]
    gram: tuple[tuple[float, ...], ...]
    target: tuple[float, ...]
    widths: tuple[int, int]

    def milliseconds(self, part: Part) -> float:
        """Of all runs of a part."""
        one: float = sum(map(mul, self.weights, part.terms))
        return part.runs * one

    def scaled(self, factor: float) -> Fit:
        """The same of a machine that takes so many times as long, which was to be expected."""
        gram = tuple(tuple(value / factor**2 for value in row) for row in self.gram)
        return Fit(
            weights=tuple(weight * factor for weight in self.weights),
            gram=gram,
            target=tuple(value / factor for value in self.target),
            widths=self.widths,
        )


class Fits(BaseModel):
    """All parts in one mode. Those of one kind together stand in for one that was never measured.

    low, high: 5 % and 95 % quantiles of measured over predicted, of whole models held out.
    relative_error: the mean of |predicted / measured - 1| over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: dict[str, Fit]
    kinds: dict[str, Fit]
    low: float
    high: float
    relative_error: float

    def each(self, arch: Architecture, work: Work) -> list[tuple[str, float]]:
        """The parts of a model, by name, and the milliseconds of each."""
        return [(p.name, self.of(p.name).milliseconds(p)) for p in parts(arch, work)]

    def parts_widths(self) -> dict[str, tuple[int, int]]:
        """The widths that each part was measured at."""
        return {name: fit.widths for name, fit in self.parts.items()}

    def of(self, name: str) -> Fit:
        """A part's fit, or that of its kind."""
        return self.parts.get(name) or self.kinds[name.partition(" ")[0]]


class LatencyTable(BaseModel):
    """Latencies of one device for one shape of work, with one thread.

    modes: "pass" for the batch; "step" where models decode.  alone: whether nothing else ran while
    it was measured.  anchor_ms: what the anchor model took then, at best: all times are brought to
    that state of the machine.  version: of the terms and of this document.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = 2
    device: str
    shape: TaskShape
    batch_size: int
    alone: bool
    anchor_ms: float
    modes: dict[Mode, Fits]

    @classmethod
    def read(cls, document: Any) -> LatencyTable | None:
        """The table of a stored document; None where there is none, or one of another version."""
        try:
            return None if document is None else cls.model_validate(document)
        except ValidationError:
            return None

    def work(self, mode: Mode) -> Work:
        """What its latencies are of."""
        return work_of(self.shape, self.batch_size, mode)

    def missing(self, arch: Architecture) -> bool:
        """Whether a part was never measured, or not at widths that reach to this one."""
        fits = [self.modes["pass"].parts.get(name) for name in names(arch)]
        return any(f is None or not f.widths[0] <= arch.width <= f.widths[1] for f in fits)

    def predict(self, arch: Architecture, mode: Mode = "pass") -> float:
        """Milliseconds of one evaluation pass of the batch, or of one step; all layers are run."""
        return sum(ms for _, ms in self.modes[mode].each(arch, self.work(mode)))

    def metrics(self, arch: Architecture) -> dict[str, float]:
        """By the names of ``nas.catalogue.metrics``."""
        return self.metrics_of({mode: self.predict(arch, mode) for mode in self.modes})

    def metrics_of(self, milliseconds: Mapping[Mode, float]) -> dict[str, float]:
        """The same of measured times."""
        tokens = self.batch_size * self.shape.sequence_length
        found = {METRIC[mode]: ms for mode, ms in milliseconds.items()}
        return found | {"throughput": 1e3 * tokens / milliseconds["pass"]}

    def interval(self, mode: Mode, predicted: float) -> tuple[float, float]:
        """Where nine of ten measurements lie of what is predicted so."""
        fits = self.modes[mode]
        return predicted * fits.low, predicted * fits.high

    def corrected(self, mode: Mode, measured: Sequence[Measured]) -> LatencyTable:
        """The table after more whole models were measured.

        The logarithms of measured over predicted are shared out over the parts, and over a factor
        that all have in common, by ridge regression: each is near 0 as long as little speaks
        against it.
        """
        if not measured:
            return self
        fits, work = self.modes[mode], self.work(mode)
        known = sorted(fits.parts)
        shares = np.zeros((len(measured), len(known) + 1))
        residuals = np.zeros(len(measured))
        for row, (arch, milliseconds) in enumerate(measured):
            each = fits.each(arch, work)
            total = sum(ms for _, ms in each)
            residuals[row] = np.log(milliseconds / total)
            shares[row, -1] = 1.0
            for name, ms in each:
                if name in fits.parts:
                    shares[row, known.index(name)] += ms / total
        normal = shares.T @ shares + TRUST * np.eye(len(known) + 1)
        factors = np.exp(np.linalg.solve(normal, shares.T @ residuals))
        scaled = {
            name: fits.parts[name].scaled(float(factor * factors[-1]))
            for name, factor in zip(known, factors, strict=False)
        }
        kinds = _scaled(fits.kinds, float(factors[-1]))
        update = fits.model_copy(update={"parts": scaled, "kinds": kinds})
        return self.model_copy(update={"modes": {**self.modes, mode: update}})

    def at_anchor(self, anchor_ms: float) -> LatencyTable:
        """The same in the state of the machine in which the anchor takes so long."""
        factor = anchor_ms / self.anchor_ms
        modes = {
            mode: fits.model_copy(
                update={
                    "parts": _scaled(fits.parts, factor),
                    "kinds": _scaled(fits.kinds, factor),
                }
            )
            for mode, fits in self.modes.items()
        }
        return self.model_copy(update={"anchor_ms": anchor_ms, "modes": modes})


def _scaled(fits: Mapping[str, Fit], factor: float) -> dict[str, Fit]:
    return {name: fit.scaled(factor) for name, fit in fits.items()}
