from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from .conftest import Reading
from .scene import OBJECTIVES


@pytest.fixture
def client(reading: Reading) -> TestClient:
    return reading.client


@pytest.fixture
def job(reading: Reading) -> str:
    return reading.job


def dominates(a: dict[str, Any], b: dict[str, Any], objectives: list[str]) -> bool:
    pairs = [(a["metrics"][name], b["metrics"][name]) for name in objectives]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def complete(client: TestClient, job: str) -> list[dict[str, Any]]:
    path = f"/v1/jobs/{job}/trials"
    found: list[dict[str, Any]] = client.get(path, params={"state": "completed"}).json()["items"]
    return found


def test_the_front_is_what_nothing_complete_dominates(client: TestClient, job: str) -> None:
    front = client.get(f"/v1/jobs/{job}/pareto").json()
    objectives = list(OBJECTIVES)
    assert front["objectives"] == objectives
    trials = complete(client, job)
    expected = [t for t in trials if not any(dominates(o, t, objectives) for o in trials)]
    expected.sort(key=lambda t: t["metrics"]["loss"])
    assert [t["id"] for t in front["items"]] == [t["id"] for t in expected]
    assert 0 < len(expected) < len(trials)
    assert front["knee"] in {t["id"] for t in front["items"]}
    assert set(front["reference_point"]) == set(objectives)
    assert front["hypervolume"] > 0
    assert all(
        len({str(x) for x in t["architecture"]["layers"]}) == 1 for t in front["homogeneous"]
    )


def test_bounds_are_kept_by_every_member(client: TestClient, job: str) -> None:
    trials = complete(client, job)
    most = sorted(t["metrics"]["parameters"] for t in trials)[len(trials) // 2]
    least = sorted(t["metrics"]["accuracy"] for t in trials)[1]
    query = {"max.parameters": most, "min.accuracy": least}
    members = client.get(f"/v1/jobs/{job}/pareto", params=query).json()["items"]
    assert members
    assert all(t["metrics"]["parameters"] <= most for t in members)
    assert all(t["metrics"]["accuracy"] >= least for t in members)
    nothing = client.get(f"/v1/jobs/{job}/pareto", params={"max.loss": 0}).json()
    assert (nothing["items"], nothing["knee"], nothing["hypervolume"]) == ([], None, 0)


def test_other_objectives_give_another_front_sorted_by_the_first(
    client: TestClient, job: str
) -> None:
    query = {"objectives": "parameters,accuracy"}
    front = client.get(f"/v1/jobs/{job}/pareto", params=query).json()
    assert front["objectives"] == ["parameters", "accuracy"]
    sizes = [t["metrics"]["parameters"] for t in front["items"]]
    assert sizes == sorted(sizes)
    accuracies = [t["metrics"]["accuracy"] for t in front["items"]]
    assert accuracies == sorted(accuracies)  # more is better, and costs more


def test_lower_rungs_stand_in_the_front_only_when_asked_for(client: TestClient, job: str) -> None:
    path = f"/v1/jobs/{job}/pareto"
    assert all(t["fidelity"] == 1 for t in client.get(path).json()["items"])
    anything = client.get(path, params={"fidelity": "any"}).json()["items"]
    assert {round(270 * t["fidelity"]) for t in anything} == {30, 270}


def test_verified_members_say_what_fresh_seeds_gave(client: TestClient, job: str) -> None:
    front = client.get(f"/v1/jobs/{job}/pareto", params={"verified": True, "objectives": "loss"})
    (member,) = front.json()["items"]
    spread = member["verified"]["loss"]
    assert spread["n"] == 2
    assert spread["low"] < spread["mean"] < spread["high"]
