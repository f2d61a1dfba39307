from __future__ import annotations

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nas.catalogue.metrics import METRICS
from nas.catalogue.strategies import STRATEGIES
from nas.catalogue.tasks import TASKS
from search_spaces import list_spaces, load_space
from search_spaces.attention import ATTENTION
from search_spaces.feedforward import FEEDFORWARD
from search_spaces.halting import HALTING
from search_spaces.residual import RESIDUAL

from .conftest import Reading

FULL = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}}


@pytest.fixture
def client(reading: Reading) -> TestClient:
    return reading.client


def items(client: TestClient, path: str) -> list[dict[str, Any]]:
    page = client.get(path).json()
    assert page["next"] is None
    found: list[dict[str, Any]] = page["items"]
    return found


def test_everything_registered_is_on_offer(client: TestClient) -> None:
    kinds = {"attention": ATTENTION, "feedforward": FEEDFORWARD, "halting": HALTING}
    for kind, registry in {**kinds, "residual": RESIDUAL}.items():
        offered = items(client, f"/v1/mechanisms?kind={kind}")
        assert [m["name"] for m in offered] == list(registry)
        assert all(m["kind"] == kind and m["citation"] and m["complexity"] for m in offered)
        for mechanism in offered:
            assert set(mechanism["domains"]) <= set(mechanism["schema"]["properties"])
            assert isinstance(mechanism["causal"], bool)
    everything = items(client, "/v1/mechanisms")
    assert len(everything) == sum(map(len, (ATTENTION, FEEDFORWARD, HALTING, RESIDUAL)))
    assert [t["name"] for t in items(client, "/v1/tasks")] == list(TASKS)
    assert [s["name"] for s in items(client, "/v1/strategies")] == list(STRATEGIES)
    metrics = items(client, "/v1/metrics")
    assert [(m["name"], m["unit"]) for m in metrics] == [(m.name, m.unit) for m in METRICS.values()]


def test_spaces_are_listed_and_shown_whole(client: TestClient) -> None:
    listed = items(client, "/v1/spaces")
    assert [(s["name"], s["version"]) for s in listed] == list_spaces()
    for short in listed:
        label = f"{short['name']}@{short['version']}"
        space = client.get(f"/v1/spaces/{label}").json()
        assert space == client.get(f"/v1/spaces/{short['name']}").json()
        assert {key: space[key] for key in short} == short
        loaded = load_space(label)
        assert space["size"] == loaded.size()
        assert load_space(space["definition"]) == loaded
        assert space["domains"]["width"] == list(loaded.domains()["width"].values)


def test_a_space_of_ones_own_is_checked_and_counted(client: TestClient) -> None:
    definition = {"name": "mine", "causal": True, "width": [16, 32], "depth": 1, "heads": 2}
    body = definition | {"attention": ["full"], "feedforward": {"type": "dense", "ratio": 2.0}}
    found = client.post("/v1/spaces/validate", json=body).json()
    assert found["valid"] is True
    assert (found["name"], found["size"]) == ("mine", 4)
    yaml = "causal: true\nwidth: {min: 16, max: 64, factor: 2}\ndepth: 1\nheads: 2\nattention: full"
    counted = client.post(
        "/v1/spaces/validate", content=yaml, headers={"Content-Type": "text/yaml"}
    )
    assert counted.json()["domains"]["width"] == [16, 32, 64]
    assert counted.json()["size"] > 3


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"attention": ["fool"]}, "/attention/0/type"),
        ({"heads": [3]}, "/width"),
        ({"widths": 3}, "/widths"),
        ({"depth": {"min": 3, "max": 1}}, "/depth/max"),
    ],
)
def test_a_space_that_cannot_be_used_says_where(
    client: TestClient, change: dict[str, Any], pointer: str
) -> None:
    good = {"causal": True, "width": [16, 32], "depth": 1, "heads": 2, "attention": ["full"]}
    response = client.post("/v1/spaces/validate", json=good | change)
    assert response.status_code == 422
    assert pointer in [error["pointer"] for error in response.json()["errors"]]


def test_profiles_are_exact_in_order_and_grow_with_the_batch(client: TestClient) -> None:
    small, large = ({"width": width, "layers": [FULL]} for width in (32, 64))
    body: dict[str, Any] = {"architectures": [large, small], "sequence_length": 64}
    one, two = client.post("/v1/architectures/profile", json=body).json()["items"]
    assert one["parameters"] > two["parameters"]
    assert math.isclose(one["parameters"], round(one["parameters"]))
    batched = client.post("/v1/architectures/profile", json=body | {"batch_size": 3}).json()
    assert batched["items"][0]["flops"] == 3 * one["flops"]


def test_many_architectures_are_priced_at_once(client: TestClient) -> None:
    layers = [FULL | {"attention": {"type": "longformer", "window": w}} for w in range(1, 21)]
    body = {"architectures": [{"width": 32, "layers": layers}] * 700, "sequence_length": 64}
    response = client.post("/v1/architectures/profile", json=body)
    assert int(response.request.headers["content-length"]) > 1_000_000
    assert len(response.json()["items"]) == 700
