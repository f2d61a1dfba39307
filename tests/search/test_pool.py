"""The pool: each architecture once, with its costs and descriptors, and whether it is open."""

from __future__ import annotations

import random

import numpy as np

from nas.search.objectives import Objectives
from nas.search.pool import Pool
from search_spaces import Architecture, load_space

SPACE = load_space("tiny")


def costs(arch: Architecture) -> dict[str, float]:
    return {"parameters": 10.0 * arch.depth}


def pool(**bounds: float) -> Pool:
    constraints = [{"metric": "parameters", **bounds}] if bounds else []
    return Pool(SPACE, Objectives.of(["loss", "parameters"], constraints), costs)


def test_each_architecture_is_there_once_with_what_is_known_of_it() -> None:
    looked_at = pool()
    drawn = [SPACE.sample(random.Random(i)) for i in range(1500)]
    places = looked_at.look_at(drawn)
    assert len(looked_at) == len(places) == len({a.fingerprint() for a in drawn})
    np.testing.assert_array_equal(looked_at.look_at(drawn), places)
    for place in places[::50]:
        arch = looked_at[place]
        loss, parameters = looked_at.rows[place]
        assert np.isnan(loss)
        assert parameters == np.log10(10 * arch.depth)
        np.testing.assert_array_equal(
            looked_at.features[place], list(SPACE.describe(arch).values())
        )


def test_what_was_asked_or_breaks_a_constraint_is_not_open() -> None:
    looked_at = pool(max=10)
    places = looked_at.look_at(SPACE.sample(random.Random(i)) for i in range(200))
    first = looked_at[looked_at.open(places)[0]]
    assert looked_at.ask(first, costs(first), inside=True) in places
    left = looked_at.open(places)
    assert 0 < len(left) < len(places)
    assert all(looked_at[p].depth == 1 and looked_at[p] != first for p in left)


def test_what_is_of_another_space_has_costs_and_no_descriptors() -> None:
    looked_at = pool()
    foreign = load_space("efficient-lm").sample(3)
    before = looked_at.ask(foreign, {"parameters": 100.0}, inside=False)
    looked_at.look_at([SPACE.sample(random.Random(0))])
    assert looked_at.rows[before, 1] == 2.0
    assert np.isnan(looked_at.features[before]).all()
    assert np.isfinite(looked_at.features[before + 1]).all()
    assert not len(looked_at.open(np.array([before])))
