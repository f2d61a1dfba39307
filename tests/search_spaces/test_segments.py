"""How layers are divided into segments, and how layers follow a change of depth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.segments import members, origins, starts

DEPTHS = st.integers(1, 24)
SEGMENTS = st.none() | st.integers(1, 30)


@pytest.mark.parametrize(
    ("depth", "segments", "expected"),
    [
        (4, 1, (0, 0, 0, 0)),
        (4, 2, (0, 0, 1, 1)),
        (5, 2, (0, 0, 1, 1, 1)),
        (3, 4, (0, 1, 2)),
        (3, None, (0, 1, 2)),
    ],
)
def test_layers_are_divided_evenly(
    depth: int, segments: int | None, expected: tuple[int, ...]
) -> None:
    assert members(depth, segments) == expected


def test_no_segments_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        starts(4, 0)


@given(DEPTHS, st.integers(1, 12))
def test_doubling_the_segments_divides_those_there_are(depth: int, segments: int) -> None:
    assert set(starts(depth, segments)) <= set(starts(depth, 2 * segments))


@given(DEPTHS, DEPTHS, SEGMENTS)
def test_equal_segments_stay_equal_when_the_depth_changes(
    old: int, new: int, segments: int | None
) -> None:
    origin = origins(old, new, segments)
    assert list(origin) == sorted(origin)
    assert set(origin) <= set(range(old))
    of_old, of_new = members(old, segments), members(new, segments)
    for i, j in zip(range(new), range(1, new), strict=False):
        if of_new[i] == of_new[j]:
            assert of_old[origin[i]] == of_old[origin[j]]


def test_layers_of_their_own_spread_over_the_new_depth() -> None:
    assert origins(2, 4, None) == (0, 0, 1, 1)
    assert origins(4, 2, None) == (0, 2)
    assert origins(2, 4, 3) == (0, 0, 1, 1)


@given(DEPTHS, SEGMENTS)
def test_without_a_change_of_depth_each_layer_is_its_own(depth: int, segments: int | None) -> None:
    assert origins(depth, depth, segments) == tuple(range(depth))
