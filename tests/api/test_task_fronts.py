from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from nas.store.records import JobRecord

from .scene import OBJECTIVES, Scene, distinct_seeds


def searched(scene: Scene, seeds: list[int], device: str = "here", **changes: Any) -> str:
    """A job that trained these architectures, on this device."""
    scene.submit(**changes)
    job: JobRecord = scene.claim(device=device)
    for seed in seeds:
        scene.train(job, seed)
    scene.finish(job)
    return job.id


def losses(front: dict[str, Any]) -> list[float]:
    return [t["metrics"]["loss"] for t in front["items"]]


def test_what_several_jobs_found_makes_one_front(client: TestClient, scene: Scene) -> None:
    seeds = distinct_seeds(12)
    first, second = searched(scene, seeds[:6]), searched(scene, seeds[6:])
    front = client.get("/v1/pareto", params={"task": "text_lm"}).json()
    assert (front["task"], front["jobs"]) == ("text_lm", [second, first])
    every = [
        t for job in (first, second) for t in client.get(f"/v1/jobs/{job}/trials").json()["items"]
    ]
    rows = {t["id"]: [t["metrics"][name] for name in OBJECTIVES] for t in every}
    best = {
        i
        for i, a in rows.items()
        if not any(b != a and all(x <= y for x, y in zip(b, a, strict=True)) for b in rows.values())
    }
    assert {t["id"] for t in front["items"]} == best
    assert {t["job"] for t in front["items"]} == {first, second}
    assert losses(front) == sorted(losses(front))
    assert front["knee"] in best
    volumes = [
        client.get(f"/v1/jobs/{job}/pareto").json()["hypervolume"] for job in (first, second)
    ]
    assert front["hypervolume"] > max(volumes)


def test_an_architecture_that_two_jobs_tried_stands_there_once(
    client: TestClient, scene: Scene
) -> None:
    seeds = distinct_seeds(5)
    searched(scene, seeds)
    searched(scene, seeds)
    front = client.get("/v1/pareto", params={"task": "text_lm", "objectives": "parameters"}).json()
    prints = [t["fingerprint"] for t in front["items"]]
    assert prints
    assert len(prints) == len(set(prints))
    assert front["knee"] in {t["id"] for t in front["items"]}


def test_only_jobs_that_compare_are_taken(client: TestClient, scene: Scene) -> None:
    seeds = distinct_seeds(3)
    small = searched(scene, seeds, training={"batch_size": 4})
    here, there = searched(scene, seeds), searched(scene, seeds, device="there")
    assert client.get("/v1/pareto", params={"job": small}).json()["jobs"] == [small]
    both = client.get("/v1/pareto", params={"job": here}).json()
    assert both["jobs"] == [here, there]
    timed = client.get("/v1/pareto", params={"job": here, "max.latency_ms": 5}).json()
    assert timed["jobs"] == [here]


def test_bounds_and_verification_count_across_jobs(client: TestClient, scene: Scene) -> None:
    finished = scene.finished_job()
    searched(scene, distinct_seeds(3))
    (verified,) = client.get(
        "/v1/pareto", params={"task": "text_lm", "verified": True, "objectives": "loss"}
    ).json()["items"]
    assert verified["job"] == finished
    most = verified["metrics"]["parameters"]
    bounded = client.get("/v1/pareto", params={"task": "text_lm", "max.parameters": most}).json()
    assert bounded["items"]
    assert all(t["metrics"]["parameters"] <= most for t in bounded["items"])


def test_a_question_without_an_answer_says_why(client: TestClient, scene: Scene) -> None:
    job = searched(scene, distinct_seeds(2))
    neither = client.get("/v1/pareto")
    assert neither.status_code == 422
    assert neither.json()["errors"][0]["allowed"] == ["task", "job"]
    unknown = client.get("/v1/pareto", params={"task": "chess"})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "task")
    assert "text_lm" in unknown.json()["errors"][0]["allowed"]
    other = client.get("/v1/pareto", params={"task": "listops", "job": job})
    assert (other.status_code, other.json()["errors"][0]["allowed"]) == (422, ["text_lm"])
    assert client.get("/v1/pareto", params={"task": "listops"}).status_code == 404
    assert client.get("/v1/pareto", params={"job": "job_none"}).status_code == 404


def test_a_job_that_has_not_begun_compares_with_none(client: TestClient, scene: Scene) -> None:
    searched(scene, distinct_seeds(2))
    waiting = scene.submit(name="later")
    front = client.get("/v1/pareto", params={"job": waiting}).json()
    assert (front["jobs"], front["items"], front["knee"]) == ([waiting], [], None)
