from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from .scene import Scene


@pytest.fixture
def job(scene: Scene) -> str:
    return scene.finished_job()


def test_an_export_is_asked_for_made_and_fetched(
    client: TestClient, scene: Scene, job: str
) -> None:
    response = client.post(f"/v1/jobs/{job}/exports", json={"trial": "knee", "format": "config"})
    assert response.status_code == 202
    export = response.json()
    place = response.headers["location"]
    assert place == f"/v1/exports/{export['id']}"
    assert export["trial"] == client.get(f"/v1/jobs/{job}/pareto").json()["knee"]
    assert client.get(place).json()["state"] == "queued"

    early = client.get(f"{place}/download")
    assert early.status_code == 409
    assert "queued" in early.json()["detail"]

    scene.serve_export(b"\x00bundle\xff")
    assert client.get(place).json()["state"] == "succeeded"
    file = client.get(f"{place}/download")
    assert file.content == b"\x00bundle\xff"
    name = client.get(place).json()["filename"]
    assert file.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert name == f"{export['id']}.zip"


def test_nothing_said_means_the_knee_and_asking_again_gives_the_same(
    client: TestClient, job: str
) -> None:
    first = client.post(f"/v1/jobs/{job}/exports").json()
    again = client.post(f"/v1/jobs/{job}/exports", json={}).json()
    assert again == first


def test_the_best_of_a_metric_and_a_trial_by_its_id(client: TestClient, job: str) -> None:
    members = client.get(f"/v1/jobs/{job}/pareto").json()["items"]
    smallest = min(members, key=lambda t: t["metrics"]["parameters"])
    path = f"/v1/jobs/{job}/exports"
    chosen = client.post(path, json={"trial": "best:parameters"}).json()
    assert chosen["trial"] == smallest["id"]
    assert client.post(path, json={"trial": smallest["id"]}).json()["id"] == chosen["id"]


def test_a_failed_export_says_why_and_may_be_asked_for_again(
    client: TestClient, scene: Scene, job: str
) -> None:
    first = client.post(f"/v1/jobs/{job}/exports").json()["id"]
    scene.serve_export(error="the disk is full")
    assert client.get(f"/v1/exports/{first}").json()["error"] == "the disk is full"
    refused = client.get(f"/v1/exports/{first}/download")
    assert refused.status_code == 409
    assert "the disk is full" in refused.json()["detail"]
    assert client.post(f"/v1/jobs/{job}/exports").json()["id"] != first


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"trial": "best:speed"}, "/trial"), ({"format": "zip"}, "/format"), ({"x": 1}, "/x")],
)
def test_an_export_that_cannot_be_asked_for(
    client: TestClient, job: str, body: dict[str, str], pointer: str
) -> None:
    response = client.post(f"/v1/jobs/{job}/exports", json=body)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["pointer"] == pointer
    assert error["allowed"]


def test_a_trial_of_another_job_is_not_found(client: TestClient, scene: Scene, job: str) -> None:
    trial = client.get(f"/v1/jobs/{job}/trials").json()["items"][0]["id"]
    response = client.post(f"/v1/jobs/{scene.submit()}/exports", json={"trial": trial})
    assert response.status_code == 404
