"""What a job must satisfy: every problem at once, each where it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nas.jobs.submission import digest, resolve
from nas.schemas import JobRequest
from nas.store.records import DatasetRecord
from search_spaces import load_space
from search_spaces.errors import InvalidInput

TEXT = {"name": "text_lm"}
DIGITS = {"name": "image_classification"}


def _request(**changes: Any) -> JobRequest:
    return JobRequest.model_validate({"task": TEXT, **changes})


def _upload(size: int, kind: str = "text") -> DatasetRecord:
    return DatasetRecord("mine", kind, "0" * 64, size, datetime.now(UTC))


def _pointers(
    uploads: dict[str, DatasetRecord] | None = None, **changes: Any
) -> dict[str, tuple[str, ...]]:
    with pytest.raises(InvalidInput) as refused:
        resolve(_request(**changes), uploads or {})
    return {problem.pointer: problem.allowed for problem in refused.value.problems}


@pytest.mark.parametrize(
    ("task", "preset"), [(TEXT, "efficient-lm"), (DIGITS, "efficient-encoder")]
)
def test_a_task_gets_the_preset_of_its_kind_pinned(task: dict[str, Any], preset: str) -> None:
    found = resolve(_request(task=task), {})
    space = load_space(preset)
    assert found.space == found.request["space"] == f"{preset}@{space.version}"
    assert load_space(found.space_definition) == space
    assert JobRequest.model_validate(found.request).space == found.space


def test_a_definition_is_stored_as_it_is() -> None:
    definition = {
        "name": "mine",
        "version": 3,
        "causal": True,
        "width": [32, 64],
        "depth": [1, 2],
        "heads": 4,
        "attention": ["full", {"type": "longformer", "window": 16}],
    }
    found = resolve(_request(space=definition), {})
    assert found.space == "mine@3"
    space = load_space(found.space_definition)
    assert space == load_space(definition)
    assert load_space(found.request["space"]) == space


def test_every_problem_is_named_at_once() -> None:
    found = _pointers(
        {"mine": _upload(10**6)},
        task={"name": "text_lm", "dataset": "yours"},
        space="efficient-encoder",
        objectives=["loss", "beauty", "loss"],
        constraints=[
            {"metric": "beauty", "max": 1},
            {"metric": "loss"},
            {"metric": "flops", "min": 3, "max": 1},
        ],
        fidelity={"min_steps": 300},
        budget={"trials": None},
        training={"gradient_clip": float("inf")},
    )
    assert set(found) == {
        "/task/dataset",
        "/space",
        "/objectives/1",
        "/objectives/2",
        "/constraints/0/metric",
        "/constraints/1",
        "/constraints/2/min",
        "/fidelity/min_steps",
        "/budget",
        "/training/gradient_clip",
    }
    assert found["/task/dataset"] == ("python-source", "mine")
    assert "loss" in found["/objectives/1"]
    assert "efficient-lm" in found["/space"]
    assert "efficient-encoder" not in found["/space"]
    assert "wall_seconds" in found["/budget"]


def test_a_tolerance_comes_on_top_of_a_bound_and_of_a_strategy_that_can_tell() -> None:
    found = _pointers(budget={"trials": None, "tolerance": 0.01})
    assert found.keys() == {"/budget"}
    assert "tolerance" not in found["/budget"]
    found = _pointers(budget={"trials": 9, "tolerance": 0.01}, strategy={"name": "tpe"})
    assert found == {"/budget/tolerance": ("pareto",)}
    budget = {"trials": 9, "tolerance": 0.01}
    assert resolve(_request(budget=budget), {}).request["budget"]["tolerance"] == 0.01


def test_without_rungs_the_least_steps_mean_nothing() -> None:
    request = _request(fidelity={"max_steps": 9, "scheme": "full"})
    assert resolve(request, {}).request["fidelity"]["scheme"] == "full"
    assert request.fidelity.rungs() == (9,)
    assert set(_pointers(fidelity={"max_steps": 9})) == {"/fidelity/min_steps"}
    for scheme in ("halving", "hyperband"):
        assert _request(fidelity={"scheme": scheme}).fidelity.rungs() == (30, 90, 270)


def test_an_unknown_space_names_those_that_there_are() -> None:
    assert {"efficient-lm", "efficient-encoder"} <= set(_pointers(space="mine")["/space"])
    assert "/space" in _pointers(space="efficient-lm@999999")


def test_a_definition_of_the_wrong_kind_is_refused_where_it_says_so() -> None:
    definition = {"causal": False, "width": 32, "depth": 1, "heads": 4, "attention": ["full"]}
    assert set(_pointers(space=definition)) == {"/space/causal"}


@pytest.mark.parametrize("space", ["efficient-lm", "survey-lm"])
def test_what_can_be_causal_may_be_searched_for_a_bidirectional_task(space: str) -> None:
    assert resolve(_request(task=DIGITS, space=space), {}).space.startswith(space)


@pytest.mark.parametrize(("size", "enough"), [(20489, False), (20490, True)])
def test_a_text_must_be_long_enough_for_its_sequences(size: int, enough: bool) -> None:
    task = {"name": "text_lm", "dataset": "mine", "sequence_length": 512}
    if enough:
        assert resolve(_request(task=task), {"mine": _upload(size)}).dataset == "mine"
    else:
        assert set(_pointers({"mine": _upload(size)}, task=task)) == {"/task/dataset"}


def test_the_built_in_text_is_no_upload() -> None:
    assert resolve(_request(), {}).dataset is None


def test_equal_requests_have_equal_digests() -> None:
    assert digest(_request()) == digest(_request(seed=0, name="search"))
    assert digest(_request()) != digest(_request(seed=1))
    assert digest(_request(space="efficient-lm")) != digest(_request())


def test_a_task_takes_data_of_its_own_kind() -> None:
    uploads = {"words": _upload(10**6), "rows": _upload(10**6, "labelled")}
    for task, allowed in (("text_lm", "words"), ("text_classification", "rows")):
        assert resolve(_request(task={"name": task, "dataset": allowed}), uploads).dataset
        (other,) = uploads.keys() - {allowed}
        refused = _pointers(uploads, task={"name": task, "dataset": other})
        assert refused == {"/task/dataset": ("python-source", allowed)}


def test_encoders_have_no_decoding_step() -> None:
    named = {
        "objectives": ["loss", "step_latency_ms"],
        "constraints": [{"metric": "decoding_memory_mb", "max": 1.0}],
    }
    assert resolve(_request(**named), {}).request["objectives"] == ["loss", "step_latency_ms"]
    found = _pointers(task=DIGITS, **named)
    assert found.keys() == {"/objectives/1", "/constraints/0/metric"}
    for allowed in found.values():
        assert {"latency_ms", "throughput"} <= set(allowed)
        assert not {"step_latency_ms", "decoding_memory_mb"} & set(allowed)


def test_verification_goes_to_other_tasks_that_fit_the_space() -> None:
    lists, mine = {"name": "listops"}, {**TEXT, "dataset": "mine"}
    assert list(_pointers(verification={"also": [lists, mine]})) == ["/verification/also/1/dataset"]
    own = {"mine": _upload(1_000_000)}
    elsewhere = {"task": mine, "verification": {"also": [{**mine, "sequence_length": 60_000}]}}
    assert list(_pointers(own, **elsewhere)) == ["/verification/also/0/dataset"]  # it is too short
    encoders = {"task": lists, "space": "survey-encoder", "verification": {"also": [DIGITS, TEXT]}}
    (where, allowed), *more = _pointers(**encoders).items()
    assert (where, more) == ("/verification/also/1/name", [])
    assert "listops" in allowed
    assert "text_lm" not in allowed
    kept = resolve(_request(verification={"also": [lists]}), {}).request["verification"]
    assert kept["also"][0]["name"] == "listops"
