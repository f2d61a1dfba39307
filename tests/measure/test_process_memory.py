"""What a process of its own says of the arithmetic of memory."""

from __future__ import annotations

from typing import Any

import pytest

from nas.catalogue.tasks import TaskShape
from nas.errors import Unsupported
from nas.measure.process_memory import measure_memory
from search_spaces.architecture import Architecture
from search_spaces.model_cost import model_cost

B = 32
SHAPE = TaskShape(256, 256, 512, True, "token")
LAYERS: list[dict[str, Any]] = [
    {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 2}},
    {"attention": {"type": "longformer"}, "feedforward": {"type": "gated", "ratio": 1}},
]


def architecture(**fields: Any) -> Architecture:
    given = {"width": 64, "layers": LAYERS * 3, "position": "none", **fields}
    return Architecture.model_validate(given)


def compared(**fields: Any) -> tuple[dict[str, float], dict[str, float]]:
    """By arithmetic, and measured."""
    arch = architecture(**fields)
    cost = model_cost(
        arch,
        batch_size=B,
        sequence_length=SHAPE.sequence_length,
        vocab_size=SHAPE.vocab_size,
        num_outputs=SHAPE.num_outputs,
        causal=SHAPE.causal,
        head=SHAPE.head,
    )
    return cost.metrics(), measure_memory(arch, SHAPE, B)


CONVOLUTION = {"attention": {"type": "full"}, "feedforward": {"type": "convolution"}}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"layers": [CONVOLUTION] * 2},
    {"checkpointing": True},
    {"residual": {"type": "reversible"}},
]


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
def test_a_fresh_process_takes_what_the_arithmetic_says(fields: dict[str, Any]) -> None:
    cost, measured = compared(**fields)
    for name, value in measured.items():
        assert cost[name] == pytest.approx(value, rel=0.1), name


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(Unsupported, match="nowhere"):
        measure_memory(architecture(), SHAPE, 1, device="nowhere")
