"""All costs of an architecture by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.catalogue.metrics import METRICS
from nas.latency import LatencyTable
from nas.measure import profile, profile_many
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
    before_training = {name for name, m in METRICS.items() if m.known == "before training"}
    assert before_training - set(costs) == {"decoding_memory_mb"}  # an encoder does not decode
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
    assert first["throughput"] == pytest.approx(64 / (first["latency_ms"] / 1e3))
    assert "step_latency_ms" not in first
    (file,) = cache.rglob("*.json")
    assert profile(encoder(), causal=False, sequence_length=64) == first
    file.write_text("damaged")
    assert profile(encoder(), causal=False, sequence_length=64)["latency_ms"] > 0
    older = {"device": "any", "batch_size": 1, "blocks": {"frame width=16": 1.0}, "fits": {}}
    file.write_text(json.dumps(older))
    assert profile(encoder(), causal=False, sequence_length=64)["latency_ms"] > 0
    assert LatencyTable.read(json.loads(file.read_text())) is not None


def test_a_table_grows_with_what_it_lacks(cache: Path) -> None:
    profile(encoder(), causal=False, sequence_length=64)
    (file,) = cache.rglob("*.json")
    before = LatencyTable.read(json.loads(file.read_text()))
    layer = {"attention": {"type": "linear"}, "feedforward": {"type": "gated"}}
    other = Architecture.model_validate({"width": 16, "position": "none", "layers": [layer]})
    profile(other, causal=False, sequence_length=64)
    after = LatencyTable.read(json.loads(file.read_text()))
    assert before is not None
    assert after is not None
    assert before.missing(other)
    assert not after.missing(other)
    assert not after.missing(encoder())


def test_many_are_profiled_as_one_is() -> None:
    layers = [
        {"attention": {"type": kind}, "feedforward": {"type": "dense"}, "heads": 2}
        for kind in ("full", "linear")
    ]
    archs = [
        Architecture.model_validate({"width": width, "layers": [layer] * depth})
        for width in (16, 32)
        for depth in (1, 2)
        for layer in layers
    ]
    many = profile_many(archs, sequence_length=64)
    assert len(many) == len(archs)
    assert many == [profile(arch, sequence_length=64) for arch in archs]
    assert all({"latency_ms", "step_latency_ms", "throughput"} <= set(costs) for costs in many)
    assert profile_many([]) == []
    with pytest.raises(InvalidArchitecture, match="linformer is for encoders"):
        profile_many([*archs, encoder()])
