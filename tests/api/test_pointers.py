from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from api.pointers import document_problems
from search_spaces.errors import Problem


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cat(Strict):
    kind: Literal["cat"] = "cat"
    lives: Annotated[int, Field(ge=1)] = 9


class Dog(Strict):
    kind: Literal["dog"] = "dog"
    tricks: dict[str, Annotated[Cat | None, Field()]] = {}


class Pair(Strict):
    both: tuple[int, Literal["a", "b"]] = (1, "a")
    renamed: int = Field(0, alias="new-name")

    @model_validator(mode="after")
    def _ours(self) -> Pair:
        if self.both[0] == 13:
            details = {"message": "no 13", "pointer": "/both/0", "allowed": ("12", "14")}
            raise PydanticCustomError("ours", "{message}", details)
        if self.both[0] == 14:
            raise ValueError("no 14 either")
        return self


class House(Strict):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    mixed: Annotated[str, Field(pattern="^p")] | Pair | list[Pair] | None = None
    colour: Annotated[str, Field(json_schema_extra={"enum": ["red", "blue"]})] = "red"
    named: dict[str, Pair] = {}


def found(value: Any) -> list[Problem]:
    with pytest.raises(ValidationError) as refused:
        House.model_validate(value)
    errors = refused.value.errors()
    return document_problems(errors, House, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "pointer", "allowed"),
    [
        ({"pet": {"kind": "cat", "lives": 0}}, "/pet/lives", ()),
        ({"pet": {"kind": "cat", "cat": 0}}, "/pet/cat", ("kind", "lives")),
        ({"pet": {"kind": "cow"}}, "/pet/kind", ("cat", "dog")),
        ({"pet": {"lives": 1}}, "/pet/kind", ("cat", "dog")),
        ({"pets": [{"kind": "cat"}, {"kind": "dog", "x": 1}]}, "/pets/1/x", ("kind", "tricks")),
        (
            {"pets": [{"kind": "dog", "tricks": {"sit/stay": {"lives": 0}}}]},
            "/pets/0/tricks/sit~1stay/lives",
            (),
        ),
        ({"mixed": "quite"}, "/mixed", ()),
        ({"mixed": {"both": [1, "c"]}}, "/mixed/both/1", ("a", "b")),
        ({"mixed": [{"both": [1, "a"]}, {"new": 1}]}, "/mixed/1/new", ("both", "new-name")),
        ({"named": {"x": {"new-name": "y"}}}, "/named/x/new-name", ()),
        ({"named": {"x": {"both": [13, "a"]}}}, "/named/x/both/0", ("12", "14")),
        ({"named": {"x": {"both": [14, "a"]}}}, "/named/x", ()),
        ({"colour": 3}, "/colour", ("red", "blue")),
        ({"named": []}, "/named", ()),
        ({"color": "red"}, "/color", ("pet", "pets", "mixed", "colour", "named")),
    ],
)
def test_a_pointer_leads_to_the_fault_and_no_further(
    value: Any, pointer: str, allowed: tuple[str, ...]
) -> None:
    (problem,) = found(value)
    assert (problem.pointer, problem.allowed) == (pointer, allowed)


def test_messages_speak_of_documents() -> None:
    assert found({"color": 1})[0].message == "unknown key"
    assert found({"named": {"x": {"both": [14, "a"]}}})[0].message == "no 14 either"
    assert found({"pet": {"kind": "cow"}})[0].message == "there is no kind 'cow'"
    assert found({"pet": {"kind": "cat", "lives": 0}})[0].message.startswith("must be")


def test_a_value_of_no_kind_that_a_union_takes_hears_of_each() -> None:
    problems = found({"mixed": 7})
    assert {p.pointer for p in problems} == {"/mixed"}
    assert len(problems) == 3
