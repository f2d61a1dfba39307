from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.schemas import TrainingRecipe
from nas.tasks import Task
from nas.training.checkpoint import load_weights
from nas.training.inheritance import inherit
from nas.training.loop import initial_model
from nas.training.segment import Parent, Segment, run_segment
from search_spaces.architecture import Architecture

FULL = {"type": "full"}
DENSE = {"type": "dense", "ratio": 2}


def architecture(*attention: Mapping[str, Any], **more: Any) -> Architecture:
    layers = [{"attention": a, "feedforward": DENSE, "heads": 2} for a in attention]
    return Architecture.model_validate({"width": 32, "position": "none", "layers": layers, **more})


def names_taken(child: Architecture, parent: Architecture, task: Task) -> tuple[set[str], float]:
    model, given = initial_model(child, task, 1), initial_model(parent, task, 2).state_dict()
    share = inherit(model, child, given, parent)
    taken = {n for n, w in model.state_dict().items() if n in given and w.equal(given[n])}
    return taken, share


def test_the_same_architecture_takes_everything(text: Task) -> None:
    arch = architecture(FULL, {"type": "gated_linear"})
    taken, share = names_taken(arch, arch, text)
    assert taken == initial_model(arch, text, 0).state_dict().keys()
    assert share == 1


def test_another_operator_takes_projections_alone(text: Task) -> None:
    parent = architecture(FULL, {"type": "gated_linear"})
    child = architecture(FULL, {"type": "linear"})
    taken, share = names_taken(child, parent, text)
    assert {"layers.1.attention.qkv.weight", "layers.1.attention.out.weight"} <= taken
    assert "layers.1.feedforward.inner.weight" in taken
    assert share == 1
    back, share = names_taken(parent, child, text)
    own = {n for n in initial_model(parent, text, 0).state_dict() if "forget" in n or "swish" in n}
    assert own
    assert not own & back
    assert 0.5 < share < 1


def test_what_has_another_shape_stays_fresh(text: Task) -> None:
    child = architecture(FULL, FULL, FULL, width=64)
    taken, share = names_taken(child, architecture(FULL, FULL), text)
    assert taken == set()
    assert share == 0


def test_another_feedforward_keeps_its_own(text: Task) -> None:
    parent, child = architecture(FULL), architecture(FULL)
    gated = {"type": "gated", "ratio": 2}
    layer = child.layers[0].model_dump() | {"feedforward": gated}
    child = Architecture.model_validate({**child.model_dump(), "layers": [layer]})
    taken, _ = names_taken(child, parent, text)
    assert not {name for name in taken if name.startswith("layers.0.feedforward.")}
    assert "embedding.weight" in taken


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    recipe = TrainingRecipe(batch_size=4, evaluation_batches=2)
    return Segment(architecture(FULL), recipe, 8, 8, 3, tmp_path / "child.pt")


def test_a_child_starts_where_its_parent_ended(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    older = replace(segment, checkpoint=tmp_path / "parent.pt")
    ended = run_segment(older, text).metrics["loss"]
    parent = Parent("trial", segment.architecture, older.checkpoint)
    one = replace(segment, to_steps=1)
    child = run_segment(replace(one, parent=parent), text).metrics["loss"]
    fresh = run_segment(replace(one, checkpoint=tmp_path / "fresh.pt"), text).metrics["loss"]
    assert abs(child - ended) < abs(child - fresh)


def test_a_child_that_was_interrupted_does_not_start_again(
    segment: Segment, text: Task, tmp_path: Path
) -> None:
    older = replace(segment, checkpoint=tmp_path / "parent.pt")
    run_segment(older, text)
    born = replace(segment, parent=Parent("trial", segment.architecture, older.checkpoint))
    run_segment(replace(born, checkpoint=tmp_path / "through.pt"), text)
    run_segment(replace(born, to_steps=3), text)
    older.checkpoint.unlink()
    run_segment(born, text)
    whole, parts = load_weights(tmp_path / "through.pt"), load_weights(segment.checkpoint)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("content", [None, b"not a checkpoint"])
def test_without_its_parent_it_starts_from_scratch(
    segment: Segment, text: Task, tmp_path: Path, content: bytes | None
) -> None:
    gone = tmp_path / "gone.pt"
    if content is not None:
        gone.write_bytes(content)
    run_segment(replace(segment, parent=Parent("trial", segment.architecture, gone)), text)
    fresh = replace(segment, checkpoint=tmp_path / "fresh.pt")
    run_segment(fresh, text)
    born, scratch = load_weights(segment.checkpoint), load_weights(fresh.checkpoint)
    assert all(torch.equal(born[name], scratch[name]) for name in scratch)
