from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from nas.jobs import Jobs

from .scene import Running, Scene, distinct_seeds, eventually, running


@dataclass
class Message:
    """A server-sent event as it came."""

    id: str
    event: str
    data: dict[str, Any]


def messages(text: str) -> list[Message]:
    """The events of a whole stream; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            found.append(Message(fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def seqs(found: list[Message]) -> list[int]:
    return [int(message.id) for message in found]


def read(url: str, job: str, after: int = 0) -> list[Message]:
    """A stream, read to its end."""
    path = f"{url}/v1/jobs/{job}/events"
    return messages(httpx.get(path, params={"after": after}, timeout=20).text)


def test_the_events_of_an_ended_job_come_whole_and_in_order(
    client: TestClient, scene: Scene
) -> None:
    response = client.get(f"/v1/jobs/{scene.finished_job(trained=4)}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    found = messages(response.text)
    assert seqs(found) == list(range(1, len(found) + 1))
    assert {m.event for m in found} == {"job", "trial"}
    assert all((m.data["seq"], m.data["type"]) == (int(m.id), m.event) for m in found)
    assert found[0].data["data"]["state"] == "queued"
    assert found[-1].data["data"]["state"] == "succeeded"


def test_a_stream_resumes_after_any_event_without_gap_or_repetition(
    client: TestClient, scene: Scene
) -> None:
    path = f"/v1/jobs/{scene.finished_job(trained=2)}/events"
    whole = messages(client.get(path).text)
    for after in range(len(whole) + 1):
        header = {"Last-Event-ID": str(after)}
        assert messages(client.get(path, headers=header).text) == whole[after:]
        assert messages(client.get(path, params={"after": after}).text) == whole[after:]
    # the header is what a client sends that has come further since it was given the address
    both = client.get(path, params={"after": 1}, headers={"Last-Event-ID": "3"})
    assert messages(both.text) == whole[3:]


def test_exports_that_follow_the_end_are_told_and_the_stream_still_ends(
    client: TestClient, scene: Scene
) -> None:
    job = scene.finished_job(trained=4)
    client.post(f"/v1/jobs/{job}/exports")
    scene.serve_export()
    found = messages(client.get(f"/v1/jobs/{job}/events").text)
    assert [m.event for m in found[-4:]] == ["job", "export", "export", "export"]


def test_many_streams_of_a_running_job_see_all_of_it_from_wherever_they_join(
    app: FastAPI, scene: Scene
) -> None:
    scene.submit()
    job = scene.claim()
    with running(app) as url, ThreadPoolExecutor(12) as pool:
        streams = []
        for i, seed in enumerate(distinct_seeds(6)):
            streams += [pool.submit(read, url, job.id, after) for after in (0, i)]
            scene.train(job, seed)
        scene.finish(job)
        found = [stream.result() for stream in streams]
    whole = found[0]
    assert seqs(whole) == list(range(1, len(whole) + 1))
    assert whole[-1].data["data"]["state"] == "succeeded"
    for stream in found:
        assert stream == whole[len(whole) - len(stream) :]
        assert len(stream) > len(whole) - 7


def test_one_query_serves_all_streams(
    app: FastAPI, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [scene.submit(name=f"job-{i}") for i in range(3)]
    asked: list[list[str]] = []
    read_for: list[str] = []
    heads, events = Jobs.event_heads, Jobs.events

    def counted_heads(self: Jobs, job_ids: Any) -> Any:
        asked.append(sorted(job_ids))
        return heads(self, job_ids)

    def counted_events(self: Jobs, job_id: str, *args: Any) -> Any:
        read_for.append(job_id)
        return events(self, job_id, *args)

    monkeypatch.setattr(Jobs, "event_heads", counted_heads)
    monkeypatch.setattr(Jobs, "events", counted_events)
    with running(app) as url, ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(read, url, job) for job in ids for _ in range(4)]
        eventually(lambda: app.state.tailer.followers == 12 and len(read_for) >= 12)
        eventually(lambda: asked[-1:] == [sorted(ids)])
        asked.clear()
        time.sleep(0.3)
        polls, polled = len(asked), {tuple(jobs) for jobs in asked}
        read_for.clear()
        for job in ids:
            scene.jobs.cancel(job)
        for stream in streams:
            assert stream.result()[-1].data["data"]["state"] == "cancelled"
    assert 0 < polls <= 0.3 / 0.02 + 2
    assert polled == {tuple(sorted(ids))}
    # new events are read once for each job, not once for each stream
    assert sorted(read_for) == sorted(ids)
    assert app.state.tailer.followers == 0


def test_a_silent_stream_is_kept_alive_and_ends_promptly_with_the_service(
    app: FastAPI, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.events.HEARTBEAT_SECONDS", 0.1)
    job = scene.submit()
    server = Running(app)
    lines: list[str] = []

    def listen() -> None:
        with httpx.stream("GET", f"{server.url}/v1/jobs/{job}/events", timeout=10) as response:
            lines.extend(response.iter_lines())

    listener = threading.Thread(target=listen)
    listener.start()
    eventually(lambda: sum(line.startswith(":") for line in lines) >= 3)
    started = time.monotonic()
    server.stop()
    listener.join(10)
    assert not listener.is_alive()
    assert time.monotonic() - started < 3
    assert app.state.tailer.followers == 0


def test_a_stream_that_is_left_is_forgotten(app: FastAPI, scene: Scene) -> None:
    job = scene.submit()
    with running(app) as url:
        with httpx.stream("GET", f"{url}/v1/jobs/{job}/events") as response:
            assert next(lines_of(response)).startswith("id: 1")
            assert app.state.tailer.followers == 1
        eventually(lambda: app.state.tailer.followers == 0)


def test_the_stream_of_a_job_that_is_deleted_ends(app: FastAPI, scene: Scene) -> None:
    job = scene.submit()
    with running(app) as url, ThreadPoolExecutor(1) as pool:
        stream = pool.submit(read, url, job)
        eventually(lambda: app.state.tailer.followers == 1)
        scene.jobs.cancel(job)
        scene.jobs.delete(job)
        assert stream.result(timeout=10)[0].data["data"]["state"] == "queued"


def lines_of(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line)
