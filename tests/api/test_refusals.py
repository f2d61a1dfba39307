"""Everything that is refused is refused as a problem document that says what, where, what else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from api import create_app
from nas.catalogue.metrics import METRICS
from nas.catalogue.strategies import STRATEGIES
from nas.catalogue.tasks import TASKS
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.store import Store
from search_spaces.attention import ATTENTION

from .conftest import Reading
from .scene import BASE_URL, problem

TASK = {"name": "text_lm"}
SEARCHABLE = [
    name
    for name, metric in METRICS.items()
    if metric.searchable and (metric.cost or name in TASKS["text_lm"]().metrics)
]
FULL = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}}
SPACE = {"causal": True, "width": [32], "depth": [1], "heads": [2], "attention": ["full"]}


def errors(response: Response) -> dict[str, dict[str, Any]]:
    """The errors of a 422 by pointer, each once."""
    found = problem(response, 422)["errors"]
    by_pointer = {error["pointer"]: error for error in found}
    assert len(by_pointer) == len(found), found
    return by_pointer


@pytest.mark.parametrize(
    ("change", "pointer", "allowed"),
    [
        ({"task": None}, "/task", list(TASKS)),
        ({"task": "text_lm"}, "/task", list(TASKS)),
        ({"task": {}}, "/task/name", list(TASKS)),
        ({"task": {"name": "text"}}, "/task/name", list(TASKS)),
        ({"task": TASK | {"length": 5}}, "/task/length", ["name", "dataset", "sequence_length"]),
        ({"task": TASK | {"sequence_length": 1}}, "/task/sequence_length", []),
        ({"task": TASK | {"sequence_length": "long"}}, "/task/sequence_length", []),
        ({"task": TASK | {"text_lm": 1}}, "/task/text_lm", ["name", "dataset", "sequence_length"]),
        ({"task": TASK | {"dataset": "mine"}}, "/task/dataset", ["python-source"]),
        ({"taks": TASK}, "/taks", list(JobRequest.model_fields)),
        ({"a/b~c": 1}, "/a~1b~0c", list(JobRequest.model_fields)),
        ({"name": ""}, "/name", []),
        ({"objectives": []}, "/objectives", []),
        ({"objectives": ["loss", "speed"]}, "/objectives/1", SEARCHABLE),
        ({"objectives": ["loss", "energy_j"]}, "/objectives/1", SEARCHABLE),
        ({"objectives": ["loss", 3]}, "/objectives/1", list(METRICS)),
        ({"objectives": ["loss", "loss"]}, "/objectives/1", []),
        ({"constraints": [{"max": 1}]}, "/constraints/0/metric", list(METRICS)),
        ({"constraints": [{"metric": "loss"}]}, "/constraints/0", ["min", "max"]),
        (
            {"constraints": [{"metric": "loss", "maximum": 1}]},
            "/constraints/0/maximum",
            ["metric", "min", "max"],
        ),
        ({"strategy": {"name": "luck"}}, "/strategy/name", list(STRATEGIES)),
        ({"strategy": {"name": "nsga2", "population_size": 1}}, "/strategy/population_size", []),
        ({"training": {"precision": "fp8"}}, "/training/precision", ["fp32", "bf16"]),
        ({"training": {"learning_rate": -1}}, "/training/learning_rate", []),
        ({"fidelity": {"min_steps": 500}}, "/fidelity/min_steps", []),
        ({"budget": {"trials": 0}}, "/budget/trials", []),
        ({"seed": 1.5}, "/seed", []),
        ({"reuse": "perhaps"}, "/reuse", []),
    ],
)
def test_a_job_that_cannot_be_used(
    reading: Reading, change: dict[str, Any], pointer: str, allowed: list[str]
) -> None:
    document = {key: value for key, value in {"task": TASK, **change}.items() if value is not None}
    found = errors(reading.client.post("/v1/jobs", json=document))
    assert list(found) == [pointer]
    assert found[pointer]["allowed"] == allowed
    assert len(reading.client.get("/v1/jobs").json()["items"]) == 1


@pytest.mark.parametrize(
    ("space", "pointers"),
    [
        ("unknown", ["/space"]),
        ("Not A Name", ["/space"]),
        ({**SPACE, "widths": [3]}, ["/space/widths"]),
        ({**SPACE, "width": "wide"}, ["/space/width"]),
        ({**SPACE, "width": [32, "wide"]}, ["/space/width/1"]),
        ({**SPACE, "attention": ["full", "fool"]}, ["/space/attention/1/type"]),
        (
            {**SPACE, "attention": [{"type": "longformer", "windows": 3}]},
            ["/space/attention/0/windows"],
        ),
        ({"causal": True, "width": [32]}, ["/space/depth", "/space/heads", "/space/attention"]),
        ({**SPACE, "causal": False}, ["/space/causal"]),
    ],
)
def test_a_space_that_cannot_be_used(reading: Reading, space: Any, pointers: list[str]) -> None:
    assert (
        list(errors(reading.client.post("/v1/jobs", json={"task": TASK, "space": space})))
        == pointers
    )


def test_a_space_of_the_wrong_kind_is_told_once_for_each_kind_that_would_do(
    reading: Reading,
) -> None:
    found = problem(reading.client.post("/v1/jobs", json={"task": TASK, "space": 7}), 422)["errors"]
    assert {error["pointer"] for error in found} == {"/space"}
    assert len(found) == 2


def test_all_faults_are_told_at_once(reading: Reading) -> None:
    document = {"task": {"name": "listops", "depth": 1}, "seed": -1, "budget": {"trails": 3}}
    found = errors(reading.client.post("/v1/jobs", json=document))
    assert sorted(found) == ["/budget/trails", "/seed", "/task/depth"]


@pytest.mark.parametrize(
    ("architecture", "pointer", "allowed"),
    [
        (
            {"width": 30, "layers": [FULL]},
            "/layers/0/heads",
            ["1", "2", "3", "5", "6", "10", "15", "30"],
        ),
        (
            {"width": 32, "layers": [FULL, FULL | {"attention": {"type": "linformer"}}]},
            "/position",
            ["none", "sinusoidal", "learned"],
        ),
        (
            {"width": 32, "layers": [FULL | {"attention": {"type": "fool"}}]},
            "/layers/0/attention/type",
            list(ATTENTION),
        ),
        (
            {"width": 32, "layers": [FULL | {"attention": {"type": "full", "window": 3}}]},
            "/layers/0/attention/window",
            ["type", "queries_per_key"],
        ),
        ({"width": 32, "layers": [FULL], "halting": {"type": "act"}}, "/repeats", ["2 or more"]),
        ({"width": 32, "layers": []}, "/layers", []),
        ({"layers": [FULL]}, "/width", []),
    ],
)
def test_an_architecture_that_cannot_be_built(
    reading: Reading, architecture: dict[str, Any], pointer: str, allowed: list[str]
) -> None:
    good = {"width": 32, "layers": [FULL]}
    body = {"architectures": [good, architecture]}
    found = errors(reading.client.post("/v1/architectures/profile", json=body))
    assert list(found) == [f"/architectures/1{pointer}"]
    assert found[f"/architectures/1{pointer}"]["allowed"] == allowed


def test_an_encoder_in_a_causal_slot_is_refused_by_its_pointer(reading: Reading) -> None:
    layer = FULL | {"attention": {"type": "linformer"}}
    body = {"architectures": [{"width": 32, "layers": [layer], "position": "learned"}]}
    found = errors(reading.client.post("/v1/architectures/profile", json=body))
    assert list(found) == ["/architectures/0/layers/0/attention/type"]
    assert reading.client.post(
        "/v1/architectures/profile", json=body | {"causal": False}
    ).is_success


@pytest.mark.parametrize(
    ("query", "pointer", "allowed"),
    [
        ("max.speed=1", "max.speed", None),
        ("order=loss", "order", None),
        ("objectives=loss,speed", "objectives", list(METRICS)),
        ("objectives=loss,loss", "objectives", []),
        ("objectives=", "objectives", list(METRICS)),
        (f"objectives={','.join(list(METRICS)[:6])}", "objectives", []),
        ("max.loss=low", "max.loss", []),
        ("max.loss=nan", "max.loss", []),
        ("max.loss=1&max.loss=2", "max.loss", []),
        ("max.loss=1&min.loss=2", "min.loss", []),
        ("fidelity=half", "fidelity", ["full", "any"]),
        ("verified=perhaps", "verified", []),
    ],
)
def test_a_front_that_cannot_be_asked_for(
    reading: Reading, query: str, pointer: str, allowed: list[str] | None
) -> None:
    found = errors(reading.client.get(f"/v1/jobs/{reading.job}/pareto?{query}"))
    assert list(found) == [pointer]
    given = found[pointer]["allowed"]
    if allowed is None:
        assert {"objectives", "fidelity", "verified", "max.latency_ms", "min.accuracy"} <= set(
            given
        )
    else:
        assert given == allowed


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs?limit=1001", "limit"),
        ("/v1/jobs?limit=many", "limit"),
        ("/v1/jobs?state=done", "state"),
        ("/v1/jobs?cursor=nonsense", "cursor"),
        ("/v1/jobs?page=2", "page"),
        ("/v1/jobs/{job}?verbose=1", "verbose"),
        ("/v1/jobs/{job}/trials?state=done", "state"),
        ("/v1/jobs/{job}/trials?sort=speed", "sort"),
        ("/v1/jobs/{job}/trials?cursor=nonsense", "cursor"),
        ("/v1/jobs/{job}/events?after=-1", "after"),
        ("/v1/jobs/{job}/events?since=1", "since"),
        ("/v1/mechanisms?kind=memory", "kind"),
        ("/v1/spaces?kind=causal", "kind"),
        ("/v1/datasets?limit=0", "limit"),
        ("/healthz?deep=1", "deep"),
    ],
)
def test_parameters_that_cannot_be_used(reading: Reading, path: str, pointer: str) -> None:
    assert list(errors(reading.client.get(path.format(job=reading.job)))) == [pointer]


def test_a_header_that_cannot_be_used(reading: Reading) -> None:
    path = f"/v1/jobs/{reading.job}/events"
    assert list(errors(reading.client.get(path, headers={"Last-Event-ID": "x"}))) == [
        "Last-Event-ID"
    ]


@pytest.mark.parametrize("name", ["", "Mine", "../etc", "a" * 65, "python-source"])
def test_a_data_set_needs_a_usable_name(reading: Reading, name: str) -> None:
    response = reading.client.post("/v1/datasets", params={"name": name}, content=b"text")
    assert list(errors(response)) == ["name"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", "{"),
        ("application/json", '{"task": {"name": "text_lm"}, "seed": NaN}'),
        ("application/json", '{"task": {"name": "text_lm"}, "seed": 1e999}'),
        ("application/json", b'{"name": "\xff"}'),
        ("application/json", "[" * 100_000),
        ("application/yaml", "a: [1"),
        ("application/yaml", "a: &x [1]\nb: *x"),
        ("application/yaml", "base: &b {seed: 1}\n<<: *b"),
        ("application/yaml", "seed: 1\nseed: 2"),
        ("application/yaml", "1: 2"),
        ("application/yaml", "? [a, b]\n: 2"),
        ("application/yaml", "seed: .inf"),
        ("application/yaml", "seed: !!python/object/apply:os.getcwd []"),
        ("application/yaml", "seed: !!binary aGk="),
        ("application/yaml", "reuse: !!bool perhaps"),
        ("application/yaml", "seed: !!int ''"),
        ("application/yaml", "a: 1\n---\nb: 2"),
        ("application/yaml", "[" * 1_000),
    ],
)
def test_what_cannot_be_parsed(reading: Reading, kind: str, body: str | bytes) -> None:
    response = reading.client.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    assert problem(response, 400)["type"].endswith(":malformed-document")


def test_a_date_in_yaml_stays_the_text_that_it_is(client: TestClient) -> None:
    body = "name: 2024-01-01\ntask: {name: text_lm}"
    response = client.post("/v1/jobs", content=body, headers={"Content-Type": "text/yaml"})
    assert response.json()["name"] == "2024-01-01"


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_other_kinds_of_body_are_not_read(reading: Reading, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = reading.client.post("/v1/jobs", content=json.dumps({"task": TASK}), headers=headers)
    assert "application/json" in problem(response, 415)["detail"]


def test_no_body_and_no_object(reading: Reading) -> None:
    assert list(errors(reading.client.post("/v1/jobs"))) == [""]
    assert list(errors(reading.client.post("/v1/jobs", json=[TASK]))) == [""]
    assert list(
        errors(
            reading.client.post(
                "/v1/jobs", json=None, content=b"null", headers={"Content-Type": "application/json"}
            )
        )
    ) == [""]


@pytest.mark.parametrize("size", [1_000_001, 3_000_000, 9_000_000])
def test_a_job_of_more_than_a_megabyte_is_too_large(reading: Reading, size: int) -> None:
    body = b'{"task": {"name": "text_lm"}}'.ljust(size)
    response = reading.client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    problem(response, 413)


def test_unknown_paths_and_methods(reading: Reading) -> None:
    problem(reading.client.get("/v1/nothing"), 404)
    problem(reading.client.get("/dashboard/nothing.js"), 404)
    problem(reading.client.get("/dashboard/../app.py"), 404)
    refused = reading.client.put("/v1/jobs")
    problem(refused, 405)
    assert refused.headers["allow"] == "GET, POST"


def test_a_data_set_over_the_limit_is_too_large_and_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, max_upload_bytes=1000)
    with TestClient(create_app(store, settings), base_url=BASE_URL) as client:
        response = client.post("/v1/datasets", params={"name": "large"}, content=b"x" * 1001)
        problem(response, 413)
        assert client.get("/v1/datasets").json()["items"] == []
        assert list(settings.datasets.iterdir()) == []
        exact = client.post("/v1/datasets", params={"name": "exact"}, content=b"x" * 1000)
        assert exact.json()["bytes"] == 1000


def test_without_a_database_all_but_health_and_catalogue_is_unavailable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/missing/folder.db")
    with TestClient(create_app(store, Settings(data=tmp_path)), base_url=BASE_URL) as client:
        refused = client.get("/v1/jobs")
        problem(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        problem(client.post("/v1/jobs", json={"task": TASK}), 503)
        assert client.get("/healthz").is_success
        assert client.get("/v1/tasks").is_success
        assert client.get("/metrics").is_success


def test_a_fault_of_ours_tells_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(client.app.state.jobs, "list", broken)  # type: ignore[attr-defined]
    response = client.get("/v1/jobs")
    problem(response, 500)
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
