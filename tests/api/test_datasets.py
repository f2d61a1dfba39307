from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fastapi.testclient import TestClient
from httpx import Response

from nas.settings import Settings

from .scene import Scene

TEXT = b"a line of text\n" * 5000


def add(client: TestClient, name: str, content: bytes = TEXT) -> int:
    return client.post("/v1/datasets", params={"name": name}, content=content).status_code


def test_a_text_is_streamed_in_listed_used_and_removed(
    client: TestClient, scene: Scene, settings: Settings
) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(TEXT), 1000):
            yield TEXT[start : start + 1000]

    response = client.post("/v1/datasets", params={"name": "mine"}, content=pieces())
    assert response.status_code == 201
    data = response.json()
    assert data["sha256"] == hashlib.sha256(TEXT).hexdigest()
    assert data["bytes"] == len(TEXT)
    assert (settings.datasets / data["sha256"]).read_bytes() == TEXT
    assert client.get("/v1/datasets").json() == {"items": [data], "next": None}

    task = {"name": "text_lm", "dataset": "mine"}
    job = client.post("/v1/jobs", json={"task": task}).json()["id"]
    needed = client.delete("/v1/datasets/mine")
    assert needed.status_code == 409
    assert job in needed.json()["detail"]
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete("/v1/datasets/mine").status_code == 204
    assert list(settings.datasets.iterdir()) == []


def test_the_same_again_is_no_new_one_and_other_content_is_a_conflict(client: TestClient) -> None:
    assert [add(client, "a"), add(client, "a"), add(client, "a", b"other")] == [201, 200, 409]


def test_the_list_is_paged(client: TestClient) -> None:
    for name in ("c", "a", "b"):
        add(client, name)
    first = client.get("/v1/datasets", params={"limit": 2}).json()
    assert [data["name"] for data in first["items"]] == ["a", "b"]
    rest = client.get("/v1/datasets", params={"limit": 2, "cursor": first["next"]}).json()
    assert ([data["name"] for data in rest["items"]], rest["next"]) == (["c"], None)


def test_nothing_is_no_data_set(client: TestClient, settings: Settings) -> None:
    assert add(client, "empty", b"") == 422
    assert list(settings.datasets.iterdir()) == []


def test_labelled_rows_are_checked_and_their_faults_told_by_line(client: TestClient) -> None:
    def post(content: str) -> Response:
        query = {"name": "films", "kind": "labelled"}
        return client.post("/v1/datasets", params=query, content=content.encode())

    faults = post("text,label\na,good\n,bad\nc,\n").json()["errors"]
    assert [error["message"] for error in faults] == [
        "line 3: the text is empty",
        "line 4: the label is neither a word nor a whole number",
    ]
    assert client.get("/v1/datasets").json()["items"] == []
    assert post("text,label\na,good\nb,bad\n").json()["kind"] == "labelled"
    text = client.post("/v1/datasets", params={"name": "words"}, content=TEXT)
    assert text.json()["kind"] == "text"
    other = client.post("/v1/datasets", params={"name": "x", "kind": "pictures"}, content=b"x")
    assert other.status_code == 422
