"""Pages of other sites, origins and hosts are not served and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api import create_app
from nas.settings import Settings
from nas.store import Store

from .conftest import Reading
from .scene import BASE_URL, Scene, problem

TASK = {"name": "text_lm"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_change_nothing(client: TestClient, scene: Scene, site: str) -> None:
    job = scene.submit()
    headers = {"Sec-Fetch-Site": site}
    problem(client.post(f"/v1/jobs/{job}/cancel", headers=headers), 403)
    problem(client.post("/v1/datasets?name=x", content=b"x", headers=headers), 403)
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    allowed = client.post(f"/v1/jobs/{job}/cancel", headers={"Sec-Fetch-Site": "same-origin"})
    assert allowed.is_success


@pytest.mark.parametrize(
    "origin",
    [
        "https://elsewhere.example",
        "http://127.0.0.1:3000",
        "http://127.0.0.1.elsewhere.example",
        "http://localhost",
        "null",
        "",
    ],
)
def test_pages_of_other_origins_change_nothing(
    client: TestClient, scene: Scene, origin: str
) -> None:
    job = scene.submit()
    headers = {"Origin": origin}
    problem(client.post(f"/v1/jobs/{job}/cancel", headers=headers), 403)
    problem(client.delete(f"/v1/jobs/{job}", headers=headers), 403)
    problem(client.post("/v1/datasets?name=x", content=b"x", headers=headers), 403)
    shown = client.get(f"/v1/jobs/{job}", headers=headers)
    assert shown.json()["state"] == "queued"
    assert "access-control-allow-origin" not in shown.headers
    allowed = client.post(f"/v1/jobs/{job}/cancel", headers={"Origin": BASE_URL})
    assert allowed.is_success


@pytest.mark.parametrize("path", ["/", "/dashboard/dashboard.js", "/v1/jobs", "/healthz"])
@pytest.mark.parametrize(
    "host",
    [
        "elsewhere.example",
        "elsewhere.example:8000",
        "127.0.0.1.elsewhere.example",
        "localhost.elsewhere.example",
        "localhost@elsewhere.example",
        "192.0.2.1:8000",
        "[2001:db8::1]:8000",
        "0.0.0.0",  # noqa: S104 - where some browsers reach this machine too
        "127.0.0.1:8000/",
        "",
    ],
)
def test_a_name_that_is_not_this_machines_is_not_answered(
    reading: Reading, host: str, path: str
) -> None:
    refused = reading.client.get(path, headers={"Host": host})
    assert repr(host) in problem(refused, 421)["detail"]
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_two_host_headers_are_one_too_many(reading: Reading) -> None:
    both = [("Host", "127.0.0.1"), ("Host", "elsewhere.example")]
    problem(reading.client.get("/v1/jobs", headers=both), 421)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "127.8.9.10:1", "localhost", "LOCALHOST:80", "[::1]:8000"],
)
def test_the_loopback_is_answered_by_any_of_its_names(reading: Reading, host: str) -> None:
    assert reading.client.get("/v1/jobs", headers={"Host": host}).is_success


def test_the_host_of_the_settings_is_answered(store: Store, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, host="Search.example")
    with TestClient(create_app(store, settings), base_url="http://search.example:8000") as client:
        assert client.get("/v1/jobs").is_success
        problem(client.get("/v1/jobs", headers={"Host": "other.example"}), 421)
