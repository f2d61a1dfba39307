"""The catalogue's self-description: complete, plain, and true of what it describes."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from nas.catalogue import description
from nas.catalogue.metrics import METRICS
from nas.catalogue.spaces import default_space, space_names
from nas.catalogue.strategies import STRATEGIES, AnyStrategy
from nas.catalogue.tasks import TASKS, AnyTask
from nas.errors import NotFound
from search_spaces import list_spaces, load_space


def test_everything_is_plain_json() -> None:
    for document in (
        description.spaces(),
        description.mechanisms(),
        description.tasks(),
        description.strategies(),
        description.metrics(),
        description.space("efficient-lm"),
    ):
        assert json.loads(json.dumps(document)) == document


def test_everything_that_is_registered_is_described() -> None:
    assert [(s["name"], s["version"]) for s in description.spaces()] == list(list_spaces())
    assert [t["name"] for t in description.tasks()] == list(TASKS)
    assert [s["name"] for s in description.strategies()] == list(STRATEGIES)
    assert [m["name"] for m in description.metrics()] == list(METRICS)
    for kind, registry in description.KINDS.items():
        assert [m["name"] for m in description.mechanisms(kind)] == list(registry)
    assert len(description.mechanisms()) == sum(map(len, description.KINDS.values()))


def test_described_defaults_make_the_default_settings() -> None:
    for document, union in (
        *((d, AnyTask) for d in description.tasks()),
        *((d, AnyStrategy) for d in description.strategies()),
    ):
        made = TypeAdapter(union).validate_python({"name": document["name"]})
        defaults = {"name": document["name"], **document["defaults"]}
        assert made.model_dump(mode="json") == defaults


def test_a_mechanism_is_described_with_its_choices_and_source() -> None:
    (found,) = [m for m in description.mechanisms("attention") if m["name"] == "longformer"]
    assert found["causal"] is True
    assert found["complexity"] == "O(N·w)"
    assert "arXiv:2004.05150" in found["citation"]
    assert 32 in found["domains"]["window"]
    assert found["schema"]["properties"]["window"]["minimum"] == 1
    assert found["defaults"]["window"] == 64


def test_a_space_is_described_with_its_decisions() -> None:
    space = load_space("efficient-lm")
    found = description.space("efficient-lm")
    assert found == description.space(f"efficient-lm@{space.version}")
    assert int(found["size"]) == space.size()
    assert load_space(found["definition"]) == space
    assert found["domains"]["width"] == list(space.domains()["width"].values)
    with pytest.raises(NotFound, match="efficient-lm"):
        description.space("unknown")


def test_every_task_has_a_preset_of_its_kind() -> None:
    for task in description.tasks():
        assert load_space(task["default_space"]).causal == task["causal"]
        assert task["default_space"] in space_names(task["causal"])
        assert task["default_space"] not in space_names(not task["causal"])
    assert default_space(True) != default_space(False)
