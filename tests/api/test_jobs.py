from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from .scene import Scene

MINIMAL = {"task": {"name": "text_lm"}}
YAML = """
name: from-yaml
task: {name: text_lm, sequence_length: 128}
space: tiny
objectives: [loss, parameters]
training: {learning_rate: 2e-3}
budget: {trials: 4}
"""


def test_a_job_is_accepted_and_found_at_its_location(client: TestClient) -> None:
    response = client.post("/v1/jobs", json=MINIMAL)
    assert response.status_code == 202
    job = response.json()
    assert job["state"] == "queued"
    assert job["request"]["budget"]["trials"] == 48
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert client.get(response.headers["location"]).json() == job


@pytest.mark.parametrize("kind", ["application/yaml", "text/yaml", "text/yaml; charset=utf-8"])
def test_yaml_says_the_same_as_json(client: TestClient, kind: str) -> None:
    response = client.post("/v1/jobs", content=YAML, headers={"Content-Type": kind})
    assert response.status_code == 202
    document = {
        "name": "from-yaml",
        "task": {"name": "text_lm", "sequence_length": 128},
        "space": "tiny",
        "objectives": ["loss", "parameters"],
        "training": {"learning_rate": 0.002},
        "budget": {"trials": 4},
    }
    same = client.post("/v1/jobs", json=document).json()
    assert response.json()["request"] == same["request"]


def test_the_same_key_gives_the_same_job_and_another_request_is_refused(client: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/jobs", json=MINIMAL, headers=headers).json()
    again = client.post("/v1/jobs", json=MINIMAL, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    other = client.post("/v1/jobs", json={**MINIMAL, "seed": 1}, headers=headers)
    assert other.status_code == 409
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_the_list_is_paged_newest_first_and_filtered(client: TestClient, scene: Scene) -> None:
    ids = [scene.submit(name=f"job-{i}") for i in range(5)]
    scene.submit(project="other")
    client.post(f"/v1/jobs/{ids[0]}/cancel")
    seen: list[str] = []
    cursor = None
    while True:
        query = {"project": "default", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/jobs", params=query).json()
        assert len(page["items"]) <= 2
        seen += [job["id"] for job in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == ids[::-1]
    cancelled = client.get("/v1/jobs", params={"state": "cancelled"}).json()["items"]
    assert [job["id"] for job in cancelled] == ids[:1]


def test_a_job_is_paused_resumed_cancelled_and_deleted(client: TestClient, scene: Scene) -> None:
    job = f"/v1/jobs/{scene.submit()}"
    for action, state in (
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
        ("cancel", "cancelled"),
    ):
        response = client.post(f"{job}/{action}")
        assert (response.status_code, response.json()["state"]) == (200, state)
    refused = client.post(f"{job}/resume")
    assert refused.status_code == 409
    assert "cancelled" in refused.json()["detail"]
    gone = client.delete(job)
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get(job).status_code == 404


def test_a_running_job_is_cancelled_by_its_worker_and_not_deleted_before(
    client: TestClient, scene: Scene
) -> None:
    scene.submit()
    job = scene.claim()
    assert client.post(f"/v1/jobs/{job.id}/cancel").json()["state"] == "cancelling"
    assert client.delete(f"/v1/jobs/{job.id}").status_code == 409


def test_progress_and_bill_tell_what_was_done(client: TestClient, scene: Scene) -> None:
    job = client.get(f"/v1/jobs/{scene.finished_job(trained=6)}").json()
    assert job["state"] == "succeeded"
    progress, bill = job["progress"], job["bill"]
    counted = {state: count for state, count in progress["trials"].items() if count}
    assert counted == {"completed": 4, "stopped": 1, "failed": 1}
    assert progress["rung_steps"] == [30, 90, 270]
    assert progress["fraction"] == 1
    assert bill["core_seconds"] == pytest.approx(2.5 * (4 * 3 + 2))
    assert bill["energy_source"] == "estimated"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/job_none"),
        ("POST", "/v1/jobs/job_none/cancel"),
        ("POST", "/v1/jobs/job_none/pause"),
        ("POST", "/v1/jobs/job_none/resume"),
        ("DELETE", "/v1/jobs/job_none"),
        ("GET", "/v1/jobs/job_none/events"),
        ("GET", "/v1/jobs/job_none/trials"),
        ("GET", "/v1/jobs/job_none/pareto"),
        ("POST", "/v1/jobs/job_none/exports"),
        ("GET", "/v1/trials/trial_none"),
        ("GET", "/v1/exports/export_none"),
        ("GET", "/v1/exports/export_none/download"),
        ("GET", "/v1/spaces/none"),
        ("DELETE", "/v1/datasets/none"),
    ],
)
def test_what_does_not_exist_is_not_found(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    problem: dict[str, Any] = response.json()
    assert response.status_code == problem["status"] == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:paretoformer:problem:not-found"
    assert "none" in problem["detail"]
