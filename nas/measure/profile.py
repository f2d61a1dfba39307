"""All costs of one architecture on this device, without training it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from nas.atomic import replacing
from nas.catalogue.tasks import TaskShape
from nas.costs import known_costs, latency_key
from nas.latency import LatencyTable
from nas.measure.latency import around, device_name, measure_table, merged, random_tokens
from search_spaces.architecture import Architecture, check
from search_spaces.values import digest

VARIANTS = 30
"""So many variants of few architectures are measured with them: a regression needs company."""
SECONDS = 20.0


def profile(
    arch: Architecture,
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    vocab_size: int = 256,
    num_outputs: int = 256,
    causal: bool = True,
) -> dict[str, float]:
    """Costs of an evaluation pass by the names of ``nas.catalogue.metrics``.

    Latencies are predicted by this device's table, which is measured once for what the architecture
    is made of and kept in a file (``$XDG_CACHE_HOME/paretoformer``): the first call takes a moment.

    Raises:
        InvalidArchitecture: it cannot stand in a causal slot.
    """
    return profile_many(
        [arch],
        batch_size=batch_size,
        sequence_length=sequence_length,
        vocab_size=vocab_size,
        num_outputs=num_outputs,
        causal=causal,
    )[0]


def profile_many(
    architectures: Sequence[Architecture],
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    vocab_size: int = 256,
    num_outputs: int = 256,
    causal: bool = True,
) -> list[dict[str, float]]:
    """``profile`` of each: thousands in a second, once the device has its table.

    Raises:
        InvalidArchitecture: one of them cannot stand in a causal slot.
    """
    for arch in architectures:
        check(arch, causal=causal)
    if not architectures:
        return []
    shape = TaskShape(vocab_size, num_outputs, sequence_length, causal, "token")
    table = device_table(architectures, shape, batch_size)
    return [known_costs(arch, shape, batch_size, table) for arch in architectures]


def device_table(
    architectures: Sequence[Architecture], shape: TaskShape, batch: int
) -> LatencyTable:
    """This device's table for work of that shape; what it lacks for these is measured now.

    It is kept in a file.
    """
    path = _cache() / f"{digest(latency_key(device_name(), shape, batch))}.json"
    known = _read(path)
    new = [arch for arch in architectures if known is None or known.missing(arch)]
    if known is not None and not new:
        return known
    pool = new if len(new) > VARIANTS else around(new, shape.causal, VARIANTS)
    measured = measure_table(pool, shape, random_tokens(shape, batch), seconds=SECONDS)
    table = measured if known is None else merged(known, measured)
    with replacing(path) as temporary:
        temporary.write_text(table.model_dump_json(), encoding="utf-8")
    return table


def _read(path: Path) -> LatencyTable | None:
    """The table in a file; one that is damaged, or of another version, is measured anew."""
    try:
        return LatencyTable.read(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "paretoformer" / "latency"
