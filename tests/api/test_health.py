from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api import create_app
from nas.settings import Settings
from nas.store import Store

from .scene import BASE_URL, Scene


def checks(client: TestClient) -> tuple[int, dict[str, tuple[bool, str]]]:
    response = client.get("/readyz")
    found = {check["name"]: (check["ok"], check["detail"]) for check in response.json()["checks"]}
    assert response.json()["ready"] is response.is_success
    return response.status_code, found


def test_ready_once_a_worker_is_alive(client: TestClient, scene: Scene) -> None:
    status, found = checks(client)
    assert status == 503
    assert found["database"][0] is True
    assert found["worker"] == (False, "no worker is alive: run `nas worker`")
    scene.worker_beats()
    status, found = checks(client)
    assert (status, found["worker"][0]) == (200, True)


def test_a_worker_that_fell_silent_does_not_count(store: Store, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, lease_seconds=1.01)
    Scene(store, settings).worker_beats()
    with TestClient(create_app(store, settings), base_url=BASE_URL) as client:
        assert checks(client)[0] == 200
        # three leases without a beat
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nas.jobs.health.MISSED_BEATS", 0)
            assert checks(client)[0] == 503


def test_a_database_that_is_not_upgraded_or_not_there_is_told(tmp_path: Path) -> None:
    for place, hint in (("new.db", "nas db upgrade"), ("no/folder.db", "unable to open")):
        store = Store(f"sqlite:///{tmp_path}/{place}")
        with TestClient(create_app(store, Settings(data=tmp_path)), base_url=BASE_URL) as client:
            status, found = checks(client)
            assert status == 503
            assert found["database"][0] is False
            assert hint in found["database"][1]
            assert client.get("/healthz").json() == {"status": "ok"}


def test_metrics_count_jobs_and_requests_by_route(client: TestClient, scene: Scene) -> None:
    ids = [scene.submit() for _ in range(3)]
    client.post(f"/v1/jobs/{ids[0]}/cancel")
    for job in ids:
        client.get(f"/v1/jobs/{job}")
    client.get("/v1/jobs/none")
    client.get("/nowhere/at/all")
    lines = client.get("/metrics").text.splitlines()
    assert 'nas_jobs{state="queued"} 2.0' in lines
    assert 'nas_jobs{state="cancelled"} 1.0' in lines
    route = '{method="GET",route="/v1/jobs/{job_id}",status="%s"}'
    assert f"nas_http_requests_total{route % 200} 3.0" in lines
    assert f"nas_http_requests_total{route % 404} 1.0" in lines
    # neither ids nor paths that strangers make up become series
    assert not [line for line in lines if ids[0] in line or "nowhere" in line]
