"""The three ways in which the values of a decision are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from search_spaces.attention.longformer import LongformerAttention
from search_spaces.choices import MAX_CHOICES, Widths, offered
from search_spaces.feedforward.gated import GatedFeedForward
from search_spaces.validation import problems_in

WIDTHS: TypeAdapter[tuple[int, ...]] = TypeAdapter(Widths)


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (32, (32,)),
        ([64, 32], (32, 64)),
        ({"min": 16, "max": 18}, (16, 17, 18)),
        ({"min": 16, "max": 63, "step": 16}, (16, 32, 48)),
        ({"min": 16, "max": 128, "factor": 2}, (16, 32, 64, 128)),
        ({"min": 16, "max": 60, "factor": 1.5}, (16, 24, 36, 54)),
        ({"min": 16, "max": 16}, (16,)),
    ],
)
def test_every_way_of_writing_gives_ascending_values(
    written: object, values: tuple[int, ...]
) -> None:
    assert WIDTHS.validate_python(written) == values


def test_fractions_step_without_the_noise_of_rounding() -> None:
    offer = offered(GatedFeedForward).model_validate(
        {"ratio": {"min": 0.1, "max": 0.7, "step": 0.2}}
    )
    assert offer.model_dump()["ratio"] == (0.1, 0.3, 0.5, 0.7)


def test_values_take_the_type_of_their_field() -> None:
    ratios = offered(GatedFeedForward).model_validate({"ratio": [1, 2]}).model_dump()["ratio"]
    assert ratios == (1.0, 2.0)
    assert all(type(ratio) is float for ratio in ratios)


def test_what_is_left_out_has_the_domain_of_the_spec() -> None:
    offer = offered(LongformerAttention).model_validate({"window": 16}).model_dump()
    domains = LongformerAttention.hyperparameters()
    assert offer == {
        "window": (16,),
        "globals": domains["globals"].values,
        "queries_per_key": domains["queries_per_key"].values,
    }


@pytest.mark.parametrize(
    ("written", "pointer"),
    [
        ([], ""),
        ([16, 32, 16], "/2"),
        (["16"], "/0"),
        ([True], "/0"),
        ([4, 16], "/0"),
        ({"min": 32, "max": 16}, "/max"),
        ({"min": 16}, "/max"),
        ({"min": 16, "max": 32, "steps": 2}, "/steps"),
        ({"min": 16, "max": 32, "step": 0}, "/step"),
        ({"min": 16, "max": 32, "step": -8}, "/step"),
        ({"min": 16, "max": 32, "factor": 1}, "/factor"),
        ({"min": 16, "max": 32, "step": 2, "factor": 2}, "/factor"),
        ({"min": 16, "max": 17.5}, "/step"),
        ({"min": 8, "max": 8 + MAX_CHOICES}, "/max"),
        ({"min": 8, "max": 10**400}, "/max"),
        ({"min": 8, "max": float("nan")}, "/max"),
        ({"min": 8.0, "max": 8192.0, "step": 5e-324}, "/max"),
        ({"min": 5e-324, "max": 8192.0, "factor": 1.0000001}, "/max"),
        (list(range(8, 9 + MAX_CHOICES)), ""),
        (None, ""),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(written: Any, pointer: str) -> None:
    with pytest.raises(ValidationError) as refused:
        WIDTHS.validate_python(written)
    assert pointer in {problem.pointer for problem in problems_in(refused.value, written)}


@given(
    low=st.integers(8, 4096),
    span=st.integers(0, 4096),
    step=st.integers(4, 512),
)
def test_a_range_counts_like_range(low: int, span: int, step: int) -> None:
    written = {"min": low, "max": low + span, "step": step}
    if low + span <= 8192 and span // step < MAX_CHOICES:
        assert WIDTHS.validate_python(written) == tuple(range(low, low + span + 1, step))
