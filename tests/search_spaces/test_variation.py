"""Mutation and crossover stay in the space and change what they say."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from search_spaces import Architecture, InvalidArchitecture, SearchSpace, load_space
from search_spaces.segments import members

PRESETS = ("efficient-lm", "efficient-encoder", "tiny")
FOLLOWING = {"width": ("heads",), "depth": ("layer.",), "position": ("attention", "heads")}
"""Which other decisions may have to follow a change of a model-level one in the presets."""


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("segments", [None, 1, 2])
def test_a_mutant_is_another_member(name: str, segments: int | None) -> None:
    space = load_space(name)
    rng = random.Random(name)
    arch = space.sample(rng, segments)
    for _ in range(300):
        mutant = space.mutate(arch, rng, segments)
        assert mutant != arch
        assert space.contains(mutant)
        arch = mutant


def changed(space: SearchSpace, old: Architecture, new: Architecture) -> set[str]:
    """Names of the decisions that both have with different values, or only one has."""
    a, b = space.decisions(old), space.decisions(new)
    return {name for name in a | b if a.get(name) != b.get(name)}


def of_one_decision(names: set[str]) -> bool:
    """Whether one change accounts for them: a decision, and what hangs on a mechanism's type."""
    for root in names:
        if all(name == root or name.startswith(f"{root}.") for name in names):
            return True
        follow = FOLLOWING.get(root, ())
        if follow and all(name == root or any(f in name for f in follow) for name in names):
            return True
    return False


@pytest.mark.parametrize("name", PRESETS)
def test_one_decision_changes(name: str) -> None:
    space = load_space(name)
    rng = random.Random(5)
    roots = Counter()
    for _ in range(600):
        arch = space.sample(rng)
        names = changed(space, arch, space.mutate(arch, rng))
        assert of_one_decision(names), names
        roots[min(names, key=len)] += 1
    assert {"width", "depth", "position"} <= set(roots)
    assert any(root.startswith("layer.") for root in roots)


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_whole_segments_change(segments: int) -> None:
    space = load_space("efficient-lm")
    rng = random.Random(segments)
    depths = set()
    arch = space.sample(rng, segments)
    for _ in range(500):
        mutant = space.mutate(arch, rng, segments)
        of = members(mutant.depth, segments)
        for i in range(1, mutant.depth):
            if of[i] == of[i - 1]:
                assert mutant.layers[i] == mutant.layers[i - 1]
        depths.add((arch.depth, mutant.depth))
        arch = mutant
    assert {(3, 4), (4, 3), (1, 2), (2, 1)} <= depths


def test_a_segment_of_unequal_layers_changes_in_one_decision_of_all() -> None:
    space = load_space("efficient-lm")
    rng = random.Random(0)
    for _ in range(300):
        arch = space.sample(rng)
        mutant = space.mutate(arch, rng, segments=1)
        assert mutant != arch
        names = changed(space, arch, mutant)
        if mutant.depth == arch.depth and all(name.startswith("layer.") for name in names):
            assert len({name.split(".", 2)[2].split(".")[0] for name in names}) == 1


def test_a_change_of_depth_keeps_the_layers() -> None:
    space = load_space("efficient-lm")
    rng = random.Random(2)
    seen = 0
    while seen < 50:
        arch = space.sample(rng, segments=2)
        mutant = space.mutate(arch, rng, segments=2)
        if mutant.depth != arch.depth and arch.depth > 1:
            seen += 1
            assert mutant.layers[0] == arch.layers[0]
            assert set(mutant.layers) <= set(arch.layers)


def test_numbers_mostly_move_to_a_neighbour() -> None:
    space = load_space("efficient-lm")
    widths = space.definition.width
    rng = random.Random(4)
    moves: Counter[int] = Counter()
    for _ in range(2000):
        arch = space.sample(rng, segments=1)
        mutant = space.mutate(arch, rng, segments=1)
        moves[abs(widths.index(mutant.width) - widths.index(arch.width))] += 1
    assert moves[1] > 2 * (moves[2] + moves[3]) > 0


def test_a_change_of_width_repairs_the_heads() -> None:
    space = load_space(
        {"causal": True, "width": [12, 16], "depth": 2, "heads": [3, 4, 8], "attention": "linear"}
    )
    layer = {"attention": {"type": "linear"}, "feedforward": {"type": "dense"}}
    arch = Architecture.model_validate(
        {
            "width": 16,
            "position": "sinusoidal",
            "layers": [layer | {"heads": 8}, layer | {"heads": 4}],
        }
    )
    mutants = (space.mutate(arch, seed) for seed in range(100))
    repaired = {tuple(la.heads for la in m.layers) for m in mutants if m.width == 12}
    assert repaired == {(4, 4)}


def test_a_change_of_mechanism_draws_its_hyperparameters() -> None:
    space = load_space("efficient-lm")
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}, "heads": 2}
    arch = Architecture.model_validate({"width": 32, "layers": [layer]})
    mutants = [space.mutate(arch, seed) for seed in range(2000)]
    windows = {
        m.layers[0].attention.window for m in mutants if m.layers[0].attention.type == "longformer"
    }
    assert windows == {16, 32, 64, 128}
    assert {m.repeats for m in mutants if m.halting.adaptive} == {2, 3}


def test_the_only_architecture_of_a_space_stays_as_it_is() -> None:
    space = load_space(
        {
            "causal": True,
            "width": 32,
            "depth": 2,
            "heads": 2,
            "attention": "linear",
            "feedforward": {"type": "dense", "ratio": 2},
        }
    )
    assert space.size() == 1
    (only,) = space.homogeneous()
    assert space.mutate(only, 0) == space.crossover(only, only, 0) == only


def test_every_member_can_be_reached_by_mutation(small: SearchSpace) -> None:
    rng = random.Random(0)
    reached = [small.sample(rng)]
    known = set(reached)
    for arch in reached:
        for mutant in (small.mutate(arch, rng) for _ in range(12)):
            if mutant not in known:
                known.add(mutant)
                reached.append(mutant)
    assert len(reached) == small.size()


@pytest.mark.parametrize("name", PRESETS)
def test_a_child_is_made_of_its_parents(name: str) -> None:
    space = load_space(name)
    rng = random.Random(name)
    for _ in range(300):
        a, b = space.sample(rng), space.sample(rng)
        child = space.crossover(a, b, rng)
        assert space.contains(child)
        for field in ("width", "norm", "position", "depth"):
            assert getattr(child, field) in (getattr(a, field), getattr(b, field))
        assert child.halting.type in (a.halting.type, b.halting.type)
        kinds = {layer.attention.type for parent in (a, b) for layer in parent.layers}
        legal = {o.type for o in space.definition.attention if child.position in o.spec.positions}
        if kinds <= legal:  # otherwise a layer may have had to be drawn
            for layer in child.layers:
                assert layer in (*a.layers, *b.layers)


def test_layers_are_inherited_from_the_same_relative_depth() -> None:
    space = load_space("efficient-lm")

    def arch(*kinds: str) -> Architecture:
        layers = [{"attention": {"type": kind}, "feedforward": {"type": "dense"}} for kind in kinds]
        return Architecture.model_validate({"width": 32, "layers": layers})

    a, b = arch("full", "linear"), arch("full", "full", "linear", "linear")
    children = {space.crossover(a, b, seed) for seed in range(30)}
    assert children == {a, b}


def test_equal_parents_have_the_same_child(small: SearchSpace) -> None:
    for seed in range(50):
        arch = small.sample(seed)
        assert small.crossover(arch, arch, seed) == arch


def test_strangers_are_refused(small: SearchSpace) -> None:
    stranger = load_space("tiny").sample(0)
    with pytest.raises(InvalidArchitecture):
        small.mutate(stranger, 0)
    with pytest.raises(InvalidArchitecture):
        small.crossover(small.sample(0), stranger, 0)


def test_one_seed_gives_one_mutant_and_one_child(small: SearchSpace) -> None:
    a, b = small.sample(0), small.sample(1)
    assert small.mutate(a, 3) == small.mutate(a, random.Random(3))
    assert small.crossover(a, b, 3) == small.crossover(a, b, random.Random(3))
