"""What a search space may be, and how one that cannot be used is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import JsonSchemaMode

from search_spaces import InvalidSpace, SpaceDefinition, load_space
from search_spaces.architecture import NORMS, POSITIONS
from search_spaces.attention import ATTENTION
from search_spaces.errors import Problem
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.halting import HALTING
from search_spaces.validation import problems_in

PLAIN: dict[str, Any] = {
    "causal": True,
    "width": [32, 64],
    "depth": [1, 2],
    "heads": [2, 4],
    "attention": ["full", "linear"],
}


def refused(**change: Any) -> list[Problem]:
    with pytest.raises(InvalidSpace) as error:
        load_space(PLAIN | change)
    return list(error.value.problems)


def pointers(problems: list[Problem]) -> list[str]:
    return [problem.pointer for problem in problems]


def test_only_the_necessary_need_be_written() -> None:
    space = SpaceDefinition.model_validate(PLAIN)
    assert (space.name, space.version) == ("custom", 1)
    assert [option.type for option in space.halting] == ["none"]
    assert [option.type for option in space.feedforward] == ["dense"]


def test_one_option_need_not_be_a_list() -> None:
    listed = SpaceDefinition.model_validate(PLAIN | {"attention": ["full"]})
    assert SpaceDefinition.model_validate(PLAIN | {"attention": "full"}) == listed


def test_a_bare_name_offers_the_domains_of_the_spec() -> None:
    space = SpaceDefinition.model_validate(PLAIN | {"attention": ["longformer"]})
    expected = {f: d.values for f, d in ATTENTION["longformer"].hyperparameters().items()}
    assert space.attention[0].hyperparameters == expected


def test_a_hyperparameter_without_a_domain_may_be_given_one() -> None:
    act = {"type": "act", "epsilon": [0.01, 0.05]}
    space = load_space(PLAIN | {"halting": [act]})
    assert space.domains()["halting.act.epsilon"].values == (0.01, 0.05)
    assert "halting.act.epsilon" not in load_space(PLAIN | {"halting": ["act"]}).domains()


@pytest.mark.parametrize("mode", ["json", "python"])
def test_what_is_written_out_reads_back_equal(mode: str) -> None:
    space = SpaceDefinition.model_validate(
        PLAIN
        | {
            "attention": ["full", {"type": "longformer", "when": {"depth": 2}, "window": 16}],
            "halting": ["none", {"type": "act", "repeats": {"min": 2, "max": 4}}],
            "conditionals": [{"when": {"halting": "act"}, "require": {"width": 32}}],
        }
    )
    written = space.model_dump(mode=mode)
    assert SpaceDefinition.model_validate(written) == space
    assert written["attention"][1]["when"] == {"depth": type(written["width"])([2])}
    assert SpaceDefinition.model_validate_json(space.model_dump_json()) == space


def test_options_with_other_values_are_not_equal() -> None:
    def options(window: int) -> dict[str, Any]:
        return PLAIN | {"attention": {"type": "longformer", "window": window}}

    assert SpaceDefinition.model_validate(options(8)) != SpaceDefinition.model_validate(options(9))


def test_an_encoder_only_option_in_a_causal_space() -> None:
    (problem,) = refused(attention=["full", "longformer", "linear", "linformer"])
    assert problem.pointer == "/attention/3/type"
    assert "linformer" not in problem.allowed
    assert {"full", "longformer", "performer", "linear"} <= set(problem.allowed)


def test_an_unknown_mechanism() -> None:
    for block, registry in (
        ("attention", ATTENTION),
        ("feedforward", FEEDFORWARD),
        ("halting", HALTING),
    ):
        (problem,) = refused(**{block: ["fulll"]})
        assert (problem.pointer, problem.allowed) == (f"/{block}/0/type", tuple(registry))


def test_an_unknown_hyperparameter() -> None:
    (problem,) = refused(attention=["full", {"type": "longformer", "windw": 3}])
    assert problem.pointer == "/attention/1/windw"
    assert {"window", "globals", "when"} <= set(problem.allowed)


def test_values_out_of_the_bounds_of_the_spec() -> None:
    problems = refused(attention=["full", {"type": "longformer", "window": [16, 0, "x"]}])
    assert pointers(problems) == ["/attention/1/window/1", "/attention/1/window/2"]
    assert problems[0].allowed == ("≥ 1",)
    (problem,) = refused(feedforward={"type": "gated", "activation": ["gelu", "tanh"]})
    assert problem.allowed == ("gelu", "silu")
    (problem,) = refused(position=["rotary", "absolute"])
    assert (problem.pointer, problem.allowed) == ("/position/1", POSITIONS)
    (problem,) = refused(norm="batch_norm")
    assert (problem.pointer, problem.allowed) == ("/norm", NORMS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"attention": []}, ["/attention"]),
        ({"attention": ["full", "linear", "full"]}, ["/attention/2/type"]),
        ({"attention": [7]}, ["/attention/0"]),
        ({"attention": [{"window": 3}]}, ["/attention/0/type"]),
        ({"attention": {"type": "full", "when": {"wdth": 32}}}, ["/attention/when/wdth"]),
        ({"attention": ["full", {"type": "linear", "when": {"width": 33}}]}, None),
        ({"halting": ["none", {"type": "act", "repeats": [1, 2]}]}, ["/halting/1/repeats"]),
        ({"halting": ["none", "act"], "repeats": 1}, ["/repeats"]),
        ({"bogus": 1, "version": 0}, ["/version", "/bogus"]),
        ({"name": "../secrets"}, ["/name"]),
        ({"conditionals": [{"when": {"depth": 3}, "require": {"width": 32}}]}, None),
    ],
)
def test_each_fault_is_found_where_it_stands(
    change: dict[str, Any], expected: list[str] | None
) -> None:
    found = pointers(refused(**change))
    if expected is None:
        (block,) = change
        condition = "width" if block == "attention" else "depth"
        index = 1 if block == "attention" else 0
        expected = [f"/{block}/{index}/when/{condition}"]
    assert found == expected


@pytest.mark.parametrize("document", [None, 3, [], "", {"causal": True}])
def test_what_is_no_definition_at_all(document: Any) -> None:
    with pytest.raises(InvalidSpace):
        load_space(document)


class Holder(BaseModel):
    space: SpaceDefinition


def test_inside_another_document_the_faults_keep_their_pointers() -> None:
    document = {
        "space": PLAIN
        | {"attention": ["full", "linformer"], "width": [32, 33], "norm": "layer_norm"}
    }
    with pytest.raises(ValidationError) as error:
        Holder.model_validate(document)
    (details,) = error.value.errors()
    assert details["loc"] == ("space",)
    assert details["ctx"]["pointer"] == "/attention/1/type"
    assert "full" in details["ctx"]["allowed"]
    assert "linformer" in details["ctx"]["message"]
    assert pointers(problems_in(error.value, document)) == ["/space/attention/1/type"]


def test_a_fault_in_an_option_says_in_which() -> None:
    document = {"space": PLAIN | {"attention": ["full", {"type": "longformer", "window": 0}]}}
    with pytest.raises(ValidationError) as error:
        Holder.model_validate(document)
    (details,) = error.value.errors()
    assert details["loc"] == ("space", "attention", 1)
    assert details["ctx"]["pointer"] == "/window"
    assert details["ctx"]["allowed"] == ("≥ 1",)


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_lists_mechanisms_and_their_hyperparameters(mode: JsonSchemaMode) -> None:
    schema = SpaceDefinition.model_json_schema(mode=mode)
    names, *forms = schema["$defs"]["AttentionOption"]["anyOf"]
    assert names["enum"] == list(ATTENTION)
    by_name = {form["properties"]["type"]["const"]: form for form in forms}
    assert list(by_name) == list(ATTENTION)
    for name, form in by_name.items():
        fields = set(ATTENTION[name].model_fields) | {"when"}
        assert set(form["properties"]) == fields
        assert form["additionalProperties"] is False
    one, several, ranged = by_name["longformer"]["properties"]["window"]["anyOf"]
    assert one == {"type": "integer", "minimum": 1}
    assert several["items"] == one
    assert set(ranged["properties"]) == {"min", "max", "step", "factor"}
    halting = schema["$defs"]["HaltingOption"]["anyOf"][1:]
    assert all("repeats" in form["properties"] for form in halting)
