"""Sampling, membership, flat choices and back, counting, describing."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from search_spaces import (
    Architecture,
    InvalidArchitecture,
    InvalidSpace,
    SearchSpace,
    load_space,
)
from search_spaces.halting.base import HaltingSlot
from search_spaces.segments import members

Members: TypeAlias = Callable[[SearchSpace], set[Architecture]]


@pytest.fixture
def space() -> SearchSpace:
    return load_space("efficient-encoder")


def test_one_seed_gives_one_architecture(space: SearchSpace) -> None:
    assert space.sample(7) == space.sample(random.Random(7)) == space.sample(7)
    assert len({space.sample(seed) for seed in range(50)}) > 40


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 9])
def test_layers_of_a_segment_are_equal(space: SearchSpace, segments: int) -> None:
    rng = random.Random(segments)
    most = 0
    for _ in range(200):
        arch = space.sample(rng, segments=segments)
        assert space.contains(arch)
        of = members(arch.depth, segments)
        runs = {s: {la for la, t in zip(arch.layers, of, strict=True) if t == s} for s in of}
        assert all(len(layers) == 1 for layers in runs.values())
        most = max(most, len(set(arch.layers)))
    assert most == min(segments, 4)


def test_every_small_architecture_is_sampled(small: SearchSpace, try_everything: Members) -> None:
    rng = random.Random(1)
    seen = {small.sample(rng) for _ in range(80 * small.size())}
    assert seen == try_everything(small)


def test_the_size_is_the_number_of_architectures(
    small: SearchSpace, try_everything: Members
) -> None:
    everything = try_everything(small)
    assert small.size() == len(everything) == len({a.fingerprint() for a in everything})
    tiny = load_space("tiny")
    assert tiny.size() == len(try_everything(tiny))


def test_the_homogeneous_ones_come_once_and_in_order(
    small: SearchSpace, try_everything: Members
) -> None:
    listed = list(small.homogeneous())
    assert listed == list(small.homogeneous())
    assert len(listed) == len(set(listed))
    assert set(listed) == {arch for arch in try_everything(small) if arch.homogeneous}


def test_the_homogeneous_ones_are_made_as_they_are_asked_for(space: SearchSpace) -> None:
    assert all(arch.homogeneous for arch in islice(space.homogeneous(), 100))


def test_choices_and_back(space: SearchSpace) -> None:
    domains = space.domains()
    for seed in range(200):
        arch = space.sample(seed)
        decisions = space.decisions(arch)
        assert space.assemble(decisions) == arch
        assert all(value in domains[name].values for name, value in decisions.items())
        assert [name for name in domains if name in decisions] == list(decisions)


def test_choices_are_called_by_their_place(space: SearchSpace) -> None:
    names = set(space.domains())
    assert {
        "width",
        "halting",
        "halting.act.ponder_cost",
        "halting.act.repeats",
        "position",
        "norm",
        "depth",
        "layer.3.attention",
        "layer.3.attention.longformer.window",
        "layer.3.feedforward.gated.ratio",
        "layer.0.heads",
    } <= names
    assert not any(name.startswith("layer.4.") for name in names)
    assert "halting.none.repeats" not in names


def test_choices_that_do_not_apply_are_not_looked_at(small: SearchSpace) -> None:
    every = {name: domain.values[0] for name, domain in small.domains().items()}
    arch = small.assemble(every | {"halting.act.repeats": "nonsense", "depth": 1})
    assert arch.halting.type == "none"
    assert arch.depth == 1


@pytest.mark.parametrize(
    ("change", "pointer", "allowed"),
    [
        ({"width": None}, "/width", ("12", "16")),
        ({"width": 13}, "/width", ("12", "16")),
        ({"width": [12]}, "/width", ("12", "16")),
        ({"layer.1.heads": None}, "/layer.1.heads", ("2", "3")),
        ({"width": 16, "layer.1.heads": 3}, "/layer.1.heads", ("2",)),
        ({"layer.0.attention": "linformer"}, "/layer.0.attention", ("longformer",)),
        ({"halting": "act", "halting.act.repeats": 3}, "/depth", ("1",)),
    ],
)
def test_choices_that_make_no_member(
    small: SearchSpace, change: dict[str, Any], pointer: str, allowed: tuple[str, ...]
) -> None:
    decisions: dict[str, Any] = {name: d.values[0] for name, d in small.domains().items()}
    decisions |= {"depth": 2} | change
    given = {name: value for name, value in decisions.items() if value is not None}
    with pytest.raises(InvalidArchitecture) as refused:
        small.assemble(given)
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.allowed) == (pointer, allowed)


LAYER = {
    "attention": {"type": "longformer", "window": 8, "globals": 0},
    "feedforward": {"type": "dense", "ratio": 1},
    "heads": 2,
}
MEMBER: dict[str, Any] = {"width": 12, "position": "learned", "layers": [LAYER, LAYER]}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"width": 24}, "/width"),
        ({"norm": "rms_norm"}, "/norm"),
        ({"position": "none"}, "/position"),
        ({"layers": [LAYER] * 3}, "/layers"),
        ({"repeats": 2}, "/repeats"),
        ({"halting": {"type": "act"}, "repeats": 4}, "/repeats"),
        ({"halting": {"type": "act", "ponder_cost": 0.1}, "repeats": 2}, "/halting/ponder_cost"),
        ({"halting": {"type": "act", "epsilon": 0.1}, "repeats": 2}, "/halting/epsilon"),
        ({"layers": [LAYER, LAYER | {"heads": 1}]}, "/layers/1/heads"),
        ({"layers": [LAYER, LAYER | {"attention": {"type": "full"}}]}, "/layers/1/attention/type"),
        (
            {"layers": [LAYER | {"attention": {"type": "longformer", "window": 8}}]},
            "/layers/0/attention/globals",
        ),
        ({"layers": [LAYER | {"feedforward": {"type": "gated"}}]}, "/layers/0/feedforward/type"),
    ],
)
def test_what_is_not_in_the_space(small: SearchSpace, change: dict[str, Any], pointer: str) -> None:
    assert small.contains(Architecture.model_validate(MEMBER))
    other = Architecture.model_validate(MEMBER | change)
    assert not small.contains(other)
    with pytest.raises(InvalidArchitecture) as refused:
        small.decisions(other)
    assert [problem.pointer for problem in refused.value.problems] == [pointer]


def test_the_trace_tells_what_was_legal(small: SearchSpace) -> None:
    trace = small.trace(Architecture.model_validate(MEMBER))
    legal = {name: values for name, _, values in trace}
    assert legal["layer.0.heads"] == (2, 3)
    assert legal["layer.0.attention"] == ("longformer",)
    assert legal["depth"] == (1, 2)


def test_descriptors_have_the_same_names_for_all(space: SearchSpace) -> None:
    rng = random.Random(3)
    described = [space.describe(space.sample(rng)) for _ in range(300)]
    names = list(described[0])
    assert all(list(d) == names for d in described)
    assert all(type(v) is float and math.isfinite(v) for d in described for v in d.values())
    for name in names:
        assert len({d[name] for d in described}) > 1, name


def test_descriptors_say_what_is_where() -> None:
    layers = [
        {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 1}, "heads": 2},
        {
            "attention": {"type": "longformer", "window": 16, "globals": 0},
            "feedforward": {"type": "gated", "ratio": 2},
        },
        {
            "attention": {"type": "longformer", "window": 64, "globals": 0},
            "feedforward": {"type": "gated", "ratio": 3},
        },
        {"attention": {"type": "full"}, "feedforward": {"type": "dense", "ratio": 4}, "heads": 2},
    ]
    arch = Architecture.model_validate(
        {"width": 48, "layers": layers, "repeats": 3, "halting": {"type": "act"}}
    )
    space = load_space("efficient-encoder")
    assert space.contains(arch)
    found = space.describe(arch)
    quarters = [
        [found[f"attention.{kind}.quarter_{q}"] for q in range(1, 5)]
        for kind in ("full", "longformer", "linear")
    ]
    assert quarters == [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    expected = {
        "depth": 4,
        "width": 48,
        "repeats": 3,
        "adaptive": 1,
        "heads": 12,
        "ratio": 10,
        "feedforward.dense.count": 2,
        "feedforward.gated.count": 2,
        "attention.longformer.log2_window": 5,
        "feedforward.dense.log2_ratio": 1,
        "position.rotary": 1,
        "position.learned": 0,
        "norm.layer_norm": 1,
    }
    assert {name: found[name] for name in expected} == expected
    parameters = sum(
        layer.attention.cost(1, 512, 48, layer.heads, False).parameters
        + layer.feedforward.cost(1, 512, 48, False).parameters
        for layer in arch.layers
    )
    parameters += arch.halting.cost(1, 512, HaltingSlot(48, 4, 3, "layer_norm")).parameters
    assert found["log_parameters"] == pytest.approx(math.log(parameters))


def test_a_layer_across_quarters_counts_in_each() -> None:
    space = load_space("tiny")
    arch = next(a for a in space.homogeneous() if a.depth == 1)
    kind = arch.layers[0].attention.type
    found = space.describe(arch)
    assert [found[f"attention.{kind}.quarter_{q}"] for q in range(1, 5)] == [0.25] * 4


def test_a_space_survives_a_change_of_process(small: SearchSpace) -> None:
    again = pickle.loads(pickle.dumps(small))  # noqa: S301 - what was just written
    assert again == small
    assert again.sample(5) == small.sample(5)
    assert again != load_space("tiny")


def test_a_space_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, causal: true, width: 32, depth: 1, heads: 2, attention: linear}")
    space = SearchSpace.from_yaml(path)
    assert (space.name, space.version, space.size()) == ("mine", 1, 3)
    assert repr(space) == "SearchSpace(mine@1)"
    path.write_text("width: [32")
    with pytest.raises(InvalidSpace, match="cannot be read"):
        SearchSpace.from_yaml(path)
    with pytest.raises(InvalidSpace, match="cannot be read"):
        SearchSpace.from_yaml(tmp_path / "none.yaml")


def test_an_answer_that_an_old_version_allowed_need_not_be_one_now() -> None:
    document = {"causal": True, "width": 32, "depth": 1, "heads": 2, "attention": "full"}
    narrow = load_space(document)
    wide = load_space(document | {"version": 2, "attention": ["full", "linear"]})
    assert all(wide.contains(arch) for arch in narrow.homogeneous())
    assert not all(narrow.contains(arch) for arch in wide.homogeneous())
