from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from pydantic import ValidationError

from nas.catalogue.tasks import ListOps
from nas.errors import DataUnavailable
from nas.tasks import build_task
from nas.tasks.examples import Examples
from nas.tasks.listops import draw, generate
from search_spaces.errors import InvalidInput

SMALL = ListOps(min_length=8, max_length=64, train_examples=300, evaluation_examples=100)
NAMES = {11: "MIN", 12: "MAX", 13: "MED", 14: "SM", 15: "]"} | {i + 1: str(i) for i in range(10)}
OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "MIN": min,
    "MAX": max,
    "MED": lambda v: int(median(v)),
    "SM": lambda v: sum(v) % 10,
}


def evaluate(tokens: list[int]) -> tuple[int, int, list[int]]:
    """Value, depth and argument counts of one list, read with a stack."""
    stack: list[tuple[str, list[int]]] = []
    counts: list[int] = []
    deepest = 0
    for i, name in enumerate(NAMES[t] for t in tokens):
        if name in OPERATORS:
            stack.append((name, []))
            deepest = max(deepest, len(stack) + 1)
            continue
        if name == "]":
            operator, values = stack.pop()
            counts.append(len(values))
            value = OPERATORS[operator](values)
        else:
            value = int(name)
        if not stack:
            assert i == len(tokens) - 1
            return value, deepest, counts
        stack[-1][1].append(value)
    raise AssertionError("the list does not end")


def lists(examples: Examples) -> list[list[int]]:
    return [examples.tokens[a:b].tolist() for a, b in pairwise(examples.bounds)]


@pytest.fixture(scope="module")
def long_lists() -> Examples:
    return draw(np.random.default_rng(5), 1500, 500, 2000)


def test_a_written_example_by_hand() -> None:
    written = [12, 5, 4, 11, 3, 4, 15, 2, 1, 15]
    assert " ".join(NAMES[t] for t in written) == "MAX 4 3 MIN 2 3 ] 1 0 ]"
    assert evaluate(written)[0] == 4


def test_values_depths_and_arguments_as_an_independent_reading(long_lists: Examples) -> None:
    read = [evaluate(tokens) for tokens in lists(long_lists)]
    assert [value for value, _, _ in read] == long_lists.targets.tolist()
    assert max(depth for _, depth, _ in read) == 10
    counts = np.concatenate([counts for _, _, counts in read])
    assert set(counts.tolist()) == set(range(2, 11))


def test_lengths_lie_strictly_between_the_bounds(long_lists: Examples) -> None:
    lengths = np.diff(long_lists.bounds)
    assert lengths.min() > 500
    assert lengths.max() < 2000
    assert lengths.max() > 1900


def test_the_share_of_lists_that_fit_is_that_of_long_range_arena(long_lists: Examples) -> None:
    # exact, by convolving the lengths of the ten depths: 0.331 of operator roots, 0.083 of all
    assert len(long_lists) / 1500 == pytest.approx(0.331, abs=0.04)


def test_lengths_are_distributed_as_drawn_one_by_one() -> None:
    rng = np.random.default_rng(1)

    def length(depth: int) -> int:
        if depth > 1 and (depth == 10 or rng.random() >= 0.25):
            return 1
        return 2 + sum(length(depth + 1) for _ in range(rng.integers(2, 11)))

    one_by_one = np.array([x for x in (length(1) for _ in range(4000)) if 8 < x < 64])
    drawn = draw(rng, 20_000, 8, 64)
    lengths = np.diff(drawn.bounds)
    assert len(lengths) / 20_000 == pytest.approx(len(one_by_one) / 4000, abs=0.02)
    edges = [9, 11, 14, 20, 35, 64]
    a, b = (np.histogram(x, edges)[0] / len(x) for x in (one_by_one, lengths))
    assert np.abs(a - b).max() < 0.06


def test_operators_are_drawn_alike(long_lists: Examples) -> None:
    counts = np.bincount(long_lists.tokens, minlength=16)
    assert counts[0] == 0
    assert np.abs(counts[11:15] / counts[11:15].sum() - 0.25).max() < 0.01
    assert np.abs(counts[1:11] / counts[1:11].sum() - 0.1).max() < 0.005
    assert counts[15] == counts[11:15].sum()


def test_no_list_is_in_two_parts_or_twice() -> None:
    parts = generate(SMALL)
    every = [tuple(tokens) for examples in parts.values() for tokens in lists(examples)]
    assert len(every) == 500
    assert len(set(every)) == 500


def test_more_to_train_on_leaves_the_held_out_parts_alone() -> None:
    more = generate(SMALL.model_copy(update={"train_examples": 600}))
    few = generate(SMALL)
    assert len(more["train"]) == 600
    for part in ("validation", "test"):
        assert more[part].digest() == few[part].digest()


def test_padding_is_masked_and_nothing_else(tmp_path: Path) -> None:
    batch = build_task(SMALL, dataset=None, cache=tmp_path).training_batch(0, 16, 0)
    assert batch.mask is not None
    assert batch.mask.equal(batch.tokens != 0)
    assert batch.tokens.shape[1] in (32, 64)


def test_the_cache_gives_the_same_data_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    first = build_task(SMALL, dataset=None, cache=tmp_path)
    (cached,) = tmp_path.iterdir()
    again = build_task(SMALL, dataset=None, cache=tmp_path)
    assert again.data_hash == first.data_hash
    assert again.training_batch(3, 8, 1).tokens.equal(first.training_batch(3, 8, 1).tokens)
    cached.write_bytes(cached.read_bytes()[:100])
    with pytest.raises(DataUnavailable, match="damaged"):
        build_task(SMALL, dataset=None, cache=tmp_path)


def test_bounds_that_hardly_any_list_fits_are_refused() -> None:
    with pytest.raises(ValidationError, match="too few lists"):
        ListOps(max_length=600)
    assert ListOps(min_length=400, max_length=600).max_length == 600


def test_no_data_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no data of your own"):
        build_task(SMALL, dataset=tmp_path / "x", cache=tmp_path)
