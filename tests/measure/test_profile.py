"""All costs of an architecture by name."""

from __future__ import annotations

import pytest

from nas.catalogue.metrics import METRICS
from nas.measure import profile
from search_spaces.architecture import Architecture, InvalidArchitecture


def encoder() -> Architecture:
    layer = {"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}}
    return Architecture.model_validate({"width": 16, "position": "none", "layers": [layer]})


def test_names() -> None:
    costs = profile(encoder(), causal=False, sequence_length=64)
    assert {name for name, m in METRICS.items() if m.known == "before training"} <= set(costs)
    assert all(value > 0 for value in costs.values())


def test_shapes_matter() -> None:
    small = profile(encoder(), causal=False, sequence_length=64)
    large = profile(encoder(), causal=False, sequence_length=128, num_outputs=512)
    assert large["flops"] > 2 * small["flops"]
    assert large["parameters"] > small["parameters"]


def test_refusal() -> None:
    with pytest.raises(InvalidArchitecture, match="linformer is for encoders"):
        profile(encoder())
