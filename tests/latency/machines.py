"""A machine whose every coefficient is known, so that a table of it can be held to the truth."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nas.catalogue.tasks import TaskShape
from nas.latency import LatencyTable, Mode
from nas.latency.terms import Work, parts, work_of
from nas.measure.latency.calibration import Observation, fit, reach
from search_spaces import Architecture, load_space


def seconds_of(name: str, terms: Sequence[float], slower: float = 1.0) -> float:
    """Milliseconds of one run of a part: some for each of its terms."""
    rng = random.Random(name)
    return slower * sum((0.2 + rng.random()) * term for term in terms)


def truth(arch: Architecture, work: Work, slower: dict[str, float] | None = None) -> float:
    """Milliseconds of a model on the machine; ``slower``: some parts take so many times as long."""
    factors = slower or {}
    return sum(
        p.runs * seconds_of(p.name, p.terms, factors.get(p.name, 1.0)) for p in parts(arch, work)
    )


def pool(space: str = "tiny", count: int = 120) -> list[Architecture]:
    """Architectures of a space."""
    known, rng = load_space(space), random.Random(0)
    return [known.sample(rng) for _ in range(count)]


def table_of(
    architectures: Sequence[Architecture], shape: TaskShape, batch_size: int
) -> LatencyTable:
    """What a calibration finds there, all being exact."""
    modes: tuple[Mode, ...] = ("pass", "step") if shape.decodes else ("pass",)
    works = {mode: work_of(shape, batch_size, mode) for mode in modes}
    widths = reach(architectures)
    return LatencyTable(
        device="a machine",
        shape=shape,
        batch_size=batch_size,
        alone=True,
        anchor_ms=2.0,
        modes={
            mode: fit([_observed(arch, work) for arch in architectures], widths)
            for mode, work in works.items()
        },
    )


def _observed(arch: Architecture, work: Work) -> Observation:
    found = parts(arch, work)
    return Observation(arch, found, [p.runs * seconds_of(p.name, p.terms) for p in found])
