from __future__ import annotations

from pathlib import Path
from typing import Any

from search_spaces import Architecture
from workers.weights import Weights


def architecture(*attention: str, **more: Any) -> Architecture:
    layers = [{"attention": {"type": a}, "feedforward": {"type": "dense"}} for a in attention]
    frame = {"width": 32, "position": "none", "layers": layers}
    return Architecture.model_validate({**frame, **more})


def test_nobody_has_weights_at_first(tmp_path: Path) -> None:
    assert Weights(tmp_path).closest(architecture("full")) is None


def test_the_one_with_most_of_the_same_blocks_is_closest(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.trained("one", architecture("full", "linear", "linear"))
    weights.trained("two", architecture("full", "full", "linear"))
    weights.trained("three", architecture("linear", "linear", "linear"))
    assert weights.closest(architecture("full", "full", "full")) == "two"


def test_of_those_as_close_it_is_the_latest(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.trained("one", architecture("full", "linear"))
    weights.trained("two", architecture("linear", "full"))
    assert weights.closest(architecture("full", "full")) == "two"
    weights.trained("one", architecture("full", "linear"))
    assert weights.closest(architecture("full", "full")) == "one"


def test_half_of_the_blocks_must_be_the_same(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    gated = [{"attention": {"type": "linear"}, "feedforward": {"type": "gated"}}]
    weights.trained("one", architecture(layers=gated))
    weights.trained("two", architecture("linear", width=64))
    assert weights.closest(architecture("full")) is None
    weights.trained("three", architecture("linear"))
    assert weights.closest(architecture("full")) == "three"


def test_another_frame_is_no_relative(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.trained("wide", architecture("full", width=64))
    weights.trained("deep", architecture("full", "full"))
    weights.trained("turned", architecture("full", position="rotary"))
    weights.trained("normed", architecture("full", norm="rms_norm"))
    assert weights.closest(architecture("full")) is None


def test_a_trial_that_failed_is_nobodys_parent(tmp_path: Path) -> None:
    weights, arch = Weights(tmp_path), architecture("full")
    weights.trained("one", arch)
    weights.of("one").touch()
    weights.drop("one", arch)
    assert weights.closest(arch) is None
    assert not weights.of("one").exists()
