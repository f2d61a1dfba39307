from __future__ import annotations

from fastapi.testclient import TestClient

from nas.states import JobState

from .conftest import Reading
from .scene import Scene, problem


def test_a_report_is_of_the_jobs_own_rows(reading: Reading) -> None:
    report = reading.client.get(f"/v1/jobs/{reading.job}/report").json()
    trials = reading.client.get(f"/v1/jobs/{reading.job}/trials").json()["items"]
    complete = [t for t in trials if t["state"] == "completed"]
    assert (report["job"], report["state"], report["metric"]) == (reading.job, "succeeded", "loss")
    assert [rung["steps"] for rung in report["rungs"]] == [30, 90]
    # in the scene each rung lowers all losses alike, so the order stays
    for rung in report["rungs"]:
        assert rung["completed"]["n"] == len(complete)
        assert rung["completed"]["kendall"] == 1.0
    (member,) = report["members"]
    verified = next(t for t in trials if t["verified"])
    assert member["trial"] == verified["id"]
    assert member["verified"] == verified["verified"]["loss"]
    assert [(f["reason"], f["trials"]) for f in report["failures"]] == [("diverged at step 31", 1)]
    assert report["reuse"] == {
        "trials": len(trials),
        "reused": 0,
        "full_trainings": 0,
        "core_seconds": 0,
    }
    assert report["warnings"]
    assert any("side by side" in words for words in report["irreproducible"])


def test_a_job_that_waits_has_a_report_of_nothing(client: TestClient, scene: Scene) -> None:
    job = scene.submit()
    report = client.get(f"/v1/jobs/{job}/report").json()
    assert (report["state"], report["members"], report["costs"]) == (JobState.QUEUED, [], [])
    assert "queued" in report["warnings"][0]


def test_no_job_no_report(client: TestClient) -> None:
    said = problem(client.get("/v1/jobs/job_none/report"), 404)
    assert "job_none" in said["detail"]
