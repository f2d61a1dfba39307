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


def test_descriptors_are_standardised_by_what_was_there_then() -> None:
    looked_at = pool()
    foreign = load_space("efficient-lm").sample(3)
    outside = looked_at.ask(foreign, {"parameters": 100.0}, inside=False)
    first = looked_at.look_at(SPACE.sample(random.Random(i)) for i in range(100))
    assert not looked_at.standardised
    looked_at.standardise(first)
    assert looked_at.standardised
    points = looked_at.points[first]
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(points.std(axis=0), 1)
    varied = looked_at.features[first].std(axis=0) > 0
    assert 0 < points.shape[1] == varied.sum() < len(varied)
    # what comes later has the same unit, and moves nothing
    later = looked_at.look_at(SPACE.sample(random.Random(i)) for i in range(100, 130))
    np.testing.assert_array_equal(looked_at.points[first], points)
    expected = looked_at.features[later][:, varied] - looked_at.features[first][:, varied].mean(0)
    expected /= looked_at.features[first][:, varied].std(0)
    np.testing.assert_allclose(looked_at.points[later], expected)
    assert looked_at.described.sum() == len(looked_at) - 1
    assert not looked_at.described[outside]
