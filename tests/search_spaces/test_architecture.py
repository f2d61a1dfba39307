"""The identity and the validity of one architecture."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from search_spaces import Architecture, InvalidArchitecture
from search_spaces.architecture import check
from search_spaces.validation import problems_in

LITERAL: dict[str, Any] = {
    "width": 64,
    "layers": [
        {
            "attention": {"type": "longformer", "window": 32},
            "feedforward": {"type": "gated", "ratio": 3.0},
            "heads": 2,
        },
        {"attention": {"type": "linear"}, "feedforward": {"type": "dense"}},
    ],
    "repeats": 3,
    "position": "learned",
    "halting": {"type": "act"},
}


def test_the_fingerprint_is_what_it_always_was() -> None:
    arch = Architecture.model_validate(LITERAL)
    assert arch.canonical_json() == (
        '{"halting":{"type":"act"},"layers":[{"attention":{"type":"longformer","window":32},'
        '"feedforward":{"ratio":3.0,"type":"gated"},"heads":2},{"attention":{"type":"linear"},'
        '"feedforward":{"type":"dense"}}],"position":"learned","repeats":3,"width":64}'
    )
    assert arch.fingerprint() == "325ff6f1454ff0233673801b493b0bea"


def test_defaults_written_out_change_no_fingerprint() -> None:
    arch = Architecture.model_validate(LITERAL)
    assert Architecture.model_validate(arch.model_dump()).fingerprint() == arch.fingerprint()
    shorter = Architecture.model_validate_json(arch.canonical_json())
    assert shorter == arch
    assert shorter.fingerprint() == arch.fingerprint()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"width": 65}, "/layers/0/heads"),
        (
            {"width": 66, "position": "rotary", "layers": LITERAL["layers"][:1]},
            "/layers/0/heads",
        ),
        ({"repeats": 1}, "/repeats"),
        (
            {
                "position": "rotary",
                "layers": [{"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}}],
            },
            "/position",
        ),
    ],
)
def test_impossible_combinations_are_refused_where_they_stand(
    change: dict[str, Any], pointer: str
) -> None:
    document = LITERAL | change
    with pytest.raises(ValidationError) as refused:
        Architecture.model_validate(document)
    assert [p.pointer for p in problems_in(refused.value, document)] == [pointer]


def test_an_encoder_only_mechanism_has_no_place_in_a_causal_slot() -> None:
    document = LITERAL | {
        "layers": [{"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}}]
    }
    arch = Architecture.model_validate(document)
    check(arch, causal=False)
    with pytest.raises(InvalidArchitecture) as refused:
        check(arch, causal=True)
    assert [p.pointer for p in refused.value.problems] == ["/layers/0/attention/type"]


def test_equal_architectures_are_one_in_a_set() -> None:
    one = Architecture.model_validate(LITERAL)
    other = Architecture.model_validate_json(json.dumps(LITERAL))
    assert len({one, other}) == 1
