"""All costs of an architecture by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.catalogue.metrics import METRICS
from nas.measure import profile
from search_spaces.architecture import Architecture, InvalidArchitecture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


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


def test_latency_is_measured_once_on_this_device(cache: Path) -> None:
    first = profile(encoder(), causal=False, sequence_length=64)
    assert first["latency_ms"] > 0
    (file,) = cache.rglob("*.json")
    assert profile(encoder(), causal=False, sequence_length=64) == first
    file.write_text("damaged")
    assert profile(encoder(), causal=False, sequence_length=64)["latency_ms"] > 0
