"""All costs of one architecture on this device, without training it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nas.atomic import replacing
from nas.catalogue.tasks import TaskShape
from nas.costs import LatencyTable, known_costs, latency_key
from nas.measure.latency import device_name, measure_table, random_tokens
from search_spaces.architecture import Architecture, check
from search_spaces.values import digest


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

    ``latency_ms`` is predicted from the blocks of the architecture, each measured once on this
    device and kept in a file (``$XDG_CACHE_HOME/paretoformer``): the first call takes a moment.

    Raises:
        InvalidArchitecture: it cannot stand in a causal slot.
    """
    check(arch, causal=causal)
    shape = TaskShape(vocab_size, num_outputs, sequence_length, causal, "token")
    return known_costs(arch, shape, batch_size, _table(arch, shape, batch_size))


def _table(arch: Architecture, shape: TaskShape, batch_size: int) -> LatencyTable:
    path = _cache() / f"{digest(latency_key(device_name(), shape, batch_size))}.json"
    known = _read(path)
    if known is not None and not known.missing(arch):
        return known
    measured = measure_table([arch], shape, random_tokens(shape, batch_size), alone=False)
    table = measured if known is None else known.merged(measured)
    with replacing(path) as temporary:
        temporary.write_text(table.model_dump_json(), encoding="utf-8")
    return table


def _read(path: Path) -> LatencyTable | None:
    """The table in a file; one that is damaged, or of another version, is measured anew."""
    try:
        return LatencyTable.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "paretoformer" / "latency"
