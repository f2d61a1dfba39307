"""The document is sound, and says what the service does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from nas.catalogue.metrics import METRICS
from nas.schemas import ExportRequest, JobRequest, ProfileRequest
from search_spaces import list_spaces, load_space

from .conftest import Reading
from .scene import Scene

Document = dict[str, Any]
FULL = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}}
PROBLEM = "application/problem+json"


@pytest.fixture(scope="session")
def document(reading: Reading) -> Document:
    """What ``/openapi.json`` says."""
    found: Document = reading.client.get("/openapi.json").json()
    return found


def objects(value: Any) -> Iterator[Document]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def validator(document: Document, schema: Document) -> Draft202012Validator:
    # references are from the document's root
    return Draft202012Validator({**schema, "components": document["components"]})


def test_every_reference_leads_somewhere_and_every_schema_is_one(document: Document) -> None:
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    references = {o["$ref"] for o in objects(document) if isinstance(o.get("$ref"), str)}
    assert references <= {f"#/components/schemas/{name}" for name in schemas}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    used = {reference.rpartition("/")[2] for reference in references}
    assert set(schemas) == used


def test_every_operation_is_named_described_and_says_how_it_fails(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
    for path, _, operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        responses = operation["responses"]
        assert any(status.startswith("2") for status in responses)
        assert "422" in responses
        for status, response in responses.items():
            if status >= "400" and (path, status) != ("/readyz", "503"):
                assert list(response["content"]) == [PROBLEM]
        if "{" in path:
            assert "404" in responses
        if "requestBody" in operation and path != "/v1/datasets":
            assert {"application/json", "application/yaml"} == set(
                operation["requestBody"]["content"]
            )
            assert {"400", "413", "415"} <= set(responses)


def test_it_is_generated_from_the_registries(document: Document) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["JobRequest"]["properties"]["objectives"]["items"]["enum"] == list(METRICS)
    assert schemas["Constraint"]["properties"]["metric"]["enum"] == list(METRICS)
    front = document["paths"]["/v1/jobs/{job_id}/pareto"]["get"]["parameters"]
    names = {p["name"] for p in front}
    assert {f"{side}.{name}" for side in ("min", "max") for name in METRICS} <= names
    task = schemas["JobRequest"]["properties"]["task"]
    assert task["discriminator"]["propertyName"] == "name"
    for reference in task["discriminator"]["mapping"].values():
        assert "name" in schemas[reference.rpartition("/")[2]]["required"]


def tour(client: TestClient, scene: Scene) -> Iterator[tuple[str, str, Response]]:
    """Every operation once, as (path as documented, method, answer)."""
    job = scene.finished_job()
    trial = client.get(f"/v1/jobs/{job}/trials").json()["items"][0]["id"]
    profile = {"architectures": [{"width": 32, "layers": [FULL]}], "sequence_length": 64}
    space = load_space("tiny").definition.model_dump(mode="json")
    of_job = "/v1/jobs/{job_id}"
    yield "/v1/jobs", "post", client.post("/v1/jobs", json={"task": {"name": "listops"}})
    yield "/v1/jobs", "get", client.get("/v1/jobs")
    yield of_job, "get", client.get(f"/v1/jobs/{job}")
    yield f"{of_job}/events", "get", client.get(f"/v1/jobs/{job}/events")
    yield f"{of_job}/trials", "get", client.get(f"/v1/jobs/{job}/trials")
    yield f"{of_job}/pareto", "get", client.get(f"/v1/jobs/{job}/pareto")
    yield f"{of_job}/report", "get", client.get(f"/v1/jobs/{job}/report")
    yield "/v1/pareto", "get", client.get("/v1/pareto", params={"job": job})
    yield "/v1/trials/{trial_id}", "get", client.get(f"/v1/trials/{trial}")
    asked = client.post(f"/v1/jobs/{job}/exports")
    yield f"{of_job}/exports", "post", asked
    export = f"/v1/exports/{asked.json()['id']}"
    yield "/v1/exports/{export_id}/download", "get", client.get(f"{export}/download")
    scene.serve_export()
    yield "/v1/exports/{export_id}", "get", client.get(export)
    yield "/v1/exports/{export_id}/download", "get", client.get(f"{export}/download")
    yield "/v1/datasets", "post", client.post("/v1/datasets?name=mine", content=b"text")
    yield "/v1/datasets", "get", client.get("/v1/datasets")
    yield "/v1/datasets/{name}", "delete", client.delete("/v1/datasets/mine")
    for name in ("spaces", "mechanisms", "tasks", "strategies", "metrics"):
        yield f"/v1/{name}", "get", client.get(f"/v1/{name}")
    yield "/v1/spaces/{name}", "get", client.get("/v1/spaces/tiny")
    yield "/v1/spaces/validate", "post", client.post("/v1/spaces/validate", json=space)
    yield (
        "/v1/architectures/profile",
        "post",
        client.post("/v1/architectures/profile", json=profile),
    )
    for name in ("healthz", "readyz", "metrics"):
        yield f"/{name}", "get", client.get(f"/{name}")
    waiting = scene.submit()
    for action in ("pause", "resume", "cancel"):
        yield f"{of_job}/{action}", "post", client.post(f"/v1/jobs/{waiting}/{action}")
    yield of_job, "delete", client.delete(f"/v1/jobs/{waiting}")
    yield of_job, "get", client.get(f"/v1/jobs/{waiting}")
    yield of_job, "delete", client.delete(f"/v1/jobs/{waiting}?x=1")


def test_every_answer_is_as_documented(client: TestClient, scene: Scene) -> None:
    document: Document = client.get("/openapi.json").json()
    seen = set()
    for path, method, answer in tour(client, scene):
        seen.add((path, method))
        responses = document["paths"][path][method]["responses"]
        described = responses[str(answer.status_code)]
        content = described.get("content", {})
        if not content:
            assert answer.content == b""
            continue
        media = answer.headers["content-type"].partition(";")[0]
        if "application/octet-stream" in content:
            continue  # a file is of whatever type its name says
        assert media in content, (path, method)
        if media.endswith("json"):
            validator(document, content[media]["schema"]).validate(answer.json())
    assert seen == {(path, method) for path, method, _ in operations(document)}


REQUESTS: dict[str, tuple[type[BaseModel], list[Document]]] = {
    "JobRequest": (
        JobRequest,
        [
            {"task": {"name": "text_lm"}},
            {"task": {"name": "listops"}, "space": None, "budget": {"wall_seconds": 60}},
            JobRequest.model_validate({"task": {"name": "text_lm"}}).model_dump(mode="json"),
            *(
                {
                    "task": {"name": "text_lm"},
                    "space": load_space(f"{name}@{version}").definition.model_dump(mode="json"),
                }
                for name, version in list_spaces()
            ),
        ],
    ),
    "ExportRequest": (ExportRequest, [{}, {"trial": "best:loss"}, {"format": "config"}]),
    "ProfileRequest": (ProfileRequest, [{"architectures": [{"width": 32, "layers": [FULL]}]}]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_it_admits_what_is_accepted(document: Document, name: str) -> None:
    model, examples = REQUESTS[name]
    check = validator(document, {"$ref": f"#/components/schemas/{name}"})
    for example in examples:
        model.model_validate(example)
        check.validate(example)


def documents(root: Document, schema: Document) -> st.SearchStrategy[Any]:
    """Documents that a schema admits, without inline search spaces, which have rules beyond it."""
    if "$ref" in schema:
        return documents(root, root["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            members = [m for m in schema[word] if not m.get("$ref", "").endswith("Definition")]
            return st.one_of([documents(root, member) for member in members])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "object":
            keys = {key: documents(root, s) for key, s in schema.get("properties", {}).items()}
            required = {key: keys.pop(key) for key in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=keys)
        case "array":
            return st.lists(
                documents(root, schema["items"]),
                min_size=schema.get("minItems", 0),
                max_size=min(3, schema.get("maxItems", 3)),
            )
        case "string":
            if "pattern" in schema:
                # a generator's $ also stands before a last line end
                return st.from_regex(schema["pattern"].replace("$", r"\Z"))
            return st.text(min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 9))
        case "integer":
            step = int(schema.get("multipleOf", 1))
            low, high = schema.get("minimum"), schema.get("maximum", 2**31)
            return st.integers(low and -(-low // step), high // step).map(lambda n: n * step)
        case "number":
            low, high = (
                schema.get(word, schema.get(f"exclusive{word.capitalize()}"))
                for word in ("minimum", "maximum")
            )
            return st.floats(
                low,
                high,
                allow_nan=False,
                allow_infinity=False,
                exclude_min="exclusiveMinimum" in schema,
                exclude_max="exclusiveMaximum" in schema,
            )
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    raise AssertionError(f"no way to make {schema}")


@given(data=st.data())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
)
def test_what_it_admits_is_read(document: Document, data: st.DataObject) -> None:
    job = data.draw(documents(document, {"$ref": "#/components/schemas/JobRequest"}))
    validator(document, {"$ref": "#/components/schemas/JobRequest"}).validate(job)
    try:
        JobRequest.model_validate(job)
    except ValidationError as refused:
        # rules between values are ours, not the schema's, and say where they are broken
        assert all("pointer" in e["ctx"] for e in refused.errors()), refused  # noqa: PT017
