"""What an architecture costs before training: exact arithmetic and a device's latency table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from nas.catalogue.tasks import TaskShape
from nas.latency import LatencyTable
from search_spaces.architecture import Architecture
from search_spaces.model_cost import model_cost


def known_costs(
    arch: Architecture,
    shape: TaskShape,
    batch_size: int,
    latency: LatencyTable | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> dict[str, float]:
    """Every metric that is known before training, by name; memory in a recipe's precision."""
    costs: dict[str, float] = model_cost(
        arch,
        batch_size=batch_size,
        sequence_length=shape.sequence_length,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
        precision=precision,
    ).metrics()
    return costs if latency is None else costs | latency.metrics(arch)


def latency_key(device: str, shape: TaskShape, batch_size: int) -> str:
    """Under which a table is kept: a table holds for one device and one shape of work."""
    return f"{device} {shape_key(shape, batch_size)}"


def shape_key(shape: TaskShape, batch_size: int) -> str:
    """How the key ends: the shape of the work alone."""
    sizes: Iterable[tuple[str, object]] = (
        ("batch", batch_size),
        ("length", shape.sequence_length),
        ("vocab", shape.vocab_size),
        ("outputs", shape.num_outputs),
        ("causal", shape.causal),
        ("head", shape.head),
    )
    return " ".join(f"{name}={value}" for name, value in sizes)
