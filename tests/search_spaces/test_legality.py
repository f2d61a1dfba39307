"""Which values go together: no dead ends, and no value that nothing can have."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Architecture, InvalidSpace, SearchSpace, load_space

Build: TypeAlias = Callable[..., SearchSpace]
Members: TypeAlias = Callable[[SearchSpace], set[Architecture]]


def problems_of(build: Build, **change: Any) -> list[tuple[str, tuple[str, ...]]]:
    with pytest.raises(InvalidSpace) as error:
        build(**change)
    return [(problem.pointer, problem.allowed) for problem in error.value.problems]


def test_conditions_hold_in_every_member(small: SearchSpace, try_everything: Members) -> None:
    members = try_everything(small)
    assert members
    for arch in members:
        if arch.halting.type == "act" and arch.repeats == 3:
            assert arch.depth == 1
        for layer in arch.layers:
            if layer.attention.type == "linformer":
                assert arch.width == 16
                assert arch.position == "learned"


def test_a_requirement_on_an_earlier_decision_binds_it_too(
    small_but: Build, try_everything: Members
) -> None:
    # width is chosen first, yet a depth of 2 must find it at 16
    space = small_but(conditionals=[{"when": {"depth": 2}, "require": {"width": 16}}])
    depths = {(a.width, a.depth) for a in try_everything(space)}
    assert depths == {(12, 1), (16, 1), (16, 2)}


def test_choices_that_would_end_nowhere_are_not_offered(small_but: Build) -> None:
    # beside width 12 neither depth is left with rotary positions
    space = small_but(
        conditionals=[
            {"when": {"width": 12, "position": "rotary"}, "require": {"depth": 2}},
            {"when": {"width": 12}, "require": {"depth": 1}},
        ]
    )
    rng = random.Random(0)
    seen = {(a.width, a.position) for a in (space.sample(rng) for _ in range(500))}
    assert seen == {(12, "learned"), (16, "learned"), (16, "rotary")}


def test_a_halting_option_may_depend_on_a_later_decision(
    small_but: Build, try_everything: Members
) -> None:
    act = {"type": "act", "ponder_cost": 0.01, "repeats": 2, "when": {"depth": 1}}
    space = small_but(halting=["none", act], conditionals=[])
    depths = {(a.halting.type, a.depth) for a in try_everything(space)}
    assert depths == {("none", 1), ("none", 2), ("act", 1)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"width": [12, 16, 17]}, [("/width", ("12", "16"))]),
        (
            {"width": [12, 15, 16], "heads": [3, 4], "position": "rotary", "attention": "full"},
            [("/width", ("12", "16"))],
        ),
        ({"heads": [2, 3, 5]}, [("/heads", ())]),
        (
            {"attention": {"type": "linformer", "rank": 8}},
            [("/position", ("learned",))],
        ),
        (
            {"conditionals": [{"when": {"width": [12, 16]}, "require": {"depth": 1}}]},
            [("/depth", ("1",))],
        ),
        (
            {
                "conditionals": [
                    {"when": {"halting": "act", "repeats": 3}, "require": {"repeats": 2}}
                ]
            },
            [("/repeats", ("1", "2")), ("/halting/1/repeats", ())],
        ),
        (
            {
                "attention": [
                    {"type": "longformer", "window": 8, "globals": 0},
                    {"type": "linformer", "rank": 8, "when": {"position": "rotary"}},
                ]
            },
            [("/attention/1", ())],
        ),
        (
            {
                "conditionals": [
                    {"when": {"depth": [1, 2]}, "require": {"width": 12}},
                    {"when": {"depth": [1, 2]}, "require": {"width": 16}},
                ]
            },
            [("", ())],
        ),
    ],
)
def test_values_that_nothing_can_have_are_refused(
    small_but: Build, change: dict[str, Any], expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert problems_of(small_but, **change) == expected


def test_a_great_many_values_without_conditions_are_no_burden(small_but: Build) -> None:
    space = small_but(
        width={"min": 8, "max": 8190, "step": 8},
        depth={"min": 1, "max": 128},
        heads=[1, 2],
        position=["learned", "sinusoidal", "none"],
        attention=["full", "linformer", "longformer"],
        halting=["none", {"type": "act", "repeats": {"min": 2, "max": 64}}],
        conditionals=[],
    )
    assert space.size() > 10**200
    assert space.contains(space.sample(0))


def test_conditions_that_tell_too_much_apart_are_refused(small_but: Build) -> None:
    found = problems_of(
        small_but,
        width={"min": 12, "max": 1200, "step": 12},
        depth={"min": 1, "max": 100},
        attention=["full"],
        conditionals=[
            {
                "when": {"width": [12 * i for i in range(1, 101) if i >> bit & 1]},
                "require": {"depth": [i for i in range(1, 101) if i >> bit & 1]},
            }
            for bit in range(7)
        ],
    )
    assert found == [("/conditionals", ())]


def test_groups_of_heads_divide_them(small_but: Build) -> None:
    attention = {"type": "full", "queries_per_key": [1, 2, 4]}
    space = small_but(width=[24], heads=[1, 2, 4, 6], depth=[1], attention=[attention])
    pairs = {
        (layer.attention.queries_per_key, layer.heads)  # type: ignore[attr-defined]
        for arch in space.homogeneous()
        for layer in arch.layers
    }
    assert pairs == {(1, 1), (1, 2), (1, 4), (1, 6), (2, 2), (2, 4), (2, 6), (4, 4)}
    assert space.size() == len(list(space.homogeneous()))


def test_groups_that_divide_no_heads_are_refused(small_but: Build) -> None:
    attention = {"type": "full", "queries_per_key": [1, 4]}
    with pytest.raises(InvalidSpace, match="groups of 4 divide none of the heads") as refused:
        small_but(width=[24], heads=[1, 2, 6], attention=[attention])
    assert refused.value.problems[0].pointer == "/attention/0/queries_per_key"


def test_reversible_models_neither_halt_nor_checkpoint(small_but: Build) -> None:
    space = small_but(
        depth=[1, 2],
        repeats=[1],
        residual=["pre_norm", "reversible"],
        checkpointing=[False, True],
        halting=["none", {"type": "early_exit", "threshold": 0.9}],
        conditionals=[],
    )
    members = list(space.homogeneous())
    found = {(a.residual.type, a.checkpointing, a.halting.type, a.depth) for a in members}
    assert found == {
        (residual, checkpointing, halting, depth)
        for residual in ("pre_norm", "reversible")
        for checkpointing in (False, True)
        for halting in ("none", "early_exit")
        for depth in (1, 2)
        if residual == "pre_norm" or not (checkpointing or halting == "early_exit")
        if halting == "none" or depth == 2
    }


def some(values: list[Any], always: list[Any] | None = None) -> st.SearchStrategy[list[Any]]:
    """A few of the values, beside those that are always there."""
    chosen = st.lists(
        st.sampled_from(values), min_size=0 if always else 1, max_size=2, unique_by=str
    )
    return chosen.map(lambda more: (always or []) + more)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Small definitions, most of them usable, with conditions on what they offer."""
    space: dict[str, Any] = {
        "width": draw(some([8, 16, 18], [12])),
        "depth": draw(some([1, 2])),
        "heads": draw(some([2, 3], [1])),
        "position": draw(some(["none", "learned", "rotary"])),
        "norm": draw(some(["layer_norm", "rms_norm"])),
        "repeats": draw(some([1, 3], [2])),
        "residual": draw(some(["reversible"], ["pre_norm"])),
        "checkpointing": draw(some([True], [False])),
    }
    halting = draw(some(["act", "early_exit"], ["none"]))
    values = space | {"halting": halting}
    conditions = st.fixed_dictionaries(
        {},
        optional={
            name: some(values[name])
            for name in ("width", "position", "depth", "halting", "residual", "checkpointing")
        },
    )
    rules = st.fixed_dictionaries({"when": conditions, "require": conditions})
    others = [
        {
            "type": "longformer",
            "window": [4, 8],
            "globals": 0,
            "queries_per_key": 1,
            "when": draw(conditions),
        },
        {"type": "linformer", "rank": [4, 8], "sharing": "layer"},
        {"type": "full", "queries_per_key": draw(some([1, 2, 3]))},
    ]
    return space | {
        "causal": False,
        "attention": draw(some(others, ["linear"])),
        "feedforward": {"type": "dense", "ratio": 1},
        "halting": [{"type": "act", "ponder_cost": 0.01} if h == "act" else h for h in halting],
        "conditionals": draw(st.lists(rules, max_size=2)),
    }


@settings(max_examples=60, deadline=None)
@given(definitions(), st.integers(0, 2**32))
def test_any_definition_is_refused_or_works(
    try_everything: Members, definition: dict[str, Any], seed: int
) -> None:
    try:
        space = load_space(definition)
    except InvalidSpace:
        return
    rng = random.Random(seed)
    members: set[Architecture] = set()
    for _ in range(20):
        arch = space.sample(rng)
        assert space.contains(arch)
        assert space.contains(space.mutate(arch, rng))
        members.add(arch)
    assert len(members) <= space.size()
    if prod(len(domain.values) for domain in space.domains().values()) < 5000:
        assert len(try_everything(space)) == space.size()
