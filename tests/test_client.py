"""The client against a real server on a free port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice
from pathlib import Path

import pytest
from fastapi import FastAPI

from api import bind, create_app
from nas.client import Client, ServiceError, ServiceUnreachable
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.states import ExportState, JobState, TrialState
from nas.store import Store
from search_spaces import load_space

from .api.scene import OBJECTIVES, Running, Scene, distinct_seeds, settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def app(store: Store, settings: Settings) -> FastAPI:
    return create_app(store, settings)


@pytest.fixture
def scene(store: Store, settings: Settings) -> Scene:
    return Scene(store, settings)


@pytest.fixture
def server(app: FastAPI) -> Iterator[Running]:
    running = Running(app)
    yield running
    running.stop()


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url, timeout=10) as opened:
        yield opened


def test_a_job_is_submitted_as_value_dict_or_file(client: Client, tmp_path: Path) -> None:
    document = {"name": "same", "task": {"name": "text_lm"}, "space": "tiny", "seed": 3}
    space = load_space("tiny").definition
    yaml, plain = tmp_path / "job.yaml", tmp_path / "job.json"
    yaml.write_text("name: same\ntask: {name: text_lm}\nspace: tiny\nseed: 3\n")
    plain.write_text(json.dumps(document))
    request = JobRequest.model_validate(document)
    jobs = [client.submit(given) for given in (document, request, yaml, plain)]
    assert len({job.id for job in jobs}) == 4
    assert all(job.request == jobs[0].request for job in jobs)
    inline = client.submit(request.model_copy(update={"space": space}))
    assert inline.request["space"] == space.model_dump(mode="json")
    assert [job.id for job in client.jobs()] == [job.id for job in (*jobs, inline)][::-1]


def test_the_same_key_submits_once(client: Client) -> None:
    job = {"task": {"name": "text_lm"}}
    assert client.submit(job, idempotency_key="k").id == client.submit(job, idempotency_key="k").id


def test_a_refusal_says_what_where_and_what_else(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "job.yml"
    file.write_text("task: {name: text_lm, langth: 3}\nobjectives: [speed]\n")
    with pytest.raises(ServiceError) as refused:
        client.submit(file)
    problem = refused.value.problem
    assert (problem.status, problem.errors[0].pointer) == (422, "/task/langth")
    assert "/task/langth: unknown key (allowed: name, dataset, sequence_length)" in str(
        refused.value
    )
    with pytest.raises(ServiceError, match="there is no job none"):
        client.job("none")
    # an id stays one part of the path, whatever is in it
    with pytest.raises(ServiceError, match=r"/v1/jobs/\.\./jobs%3Fx=1"):
        client.job("../jobs?x=1")


def test_jobs_are_steered(client: Client, scene: Scene) -> None:
    job = scene.submit()
    assert client.pause(job).state == JobState.PAUSED
    assert client.resume(job).state == JobState.QUEUED
    assert client.cancel(job).state == JobState.CANCELLED
    assert [found.id for found in client.jobs(state=JobState.CANCELLED)] == [job]
    with pytest.raises(ServiceError, match="cancelled"):
        client.pause(job)
    client.delete(job)
    assert list(client.jobs()) == []


def test_trials_fronts_and_exports_are_read(client: Client, scene: Scene, tmp_path: Path) -> None:
    job = scene.finished_job()
    trials = list(client.trials(job, sort="-loss", limit=5))
    assert len({trial.id for trial in trials}) == 12
    complete = list(client.trials(job, state=TrialState.COMPLETED))
    assert len(complete) == 8
    assert [point.rung for point in client.trial(complete[0].id).curve] == [0, 1, 2]

    front = client.pareto(job)
    assert front.objectives == list(OBJECTIVES)
    most = front.items[0].metrics["parameters"] - 1
    bounded = client.pareto(job, ["parameters", "loss"], max={"parameters": most}, fidelity="full")
    assert bounded.objectives == ["parameters", "loss"]
    assert all(trial.metrics["parameters"] <= most for trial in bounded.items)
    assert len(client.pareto(job, min={"accuracy": 2}).items) == 0
    assert len(client.pareto(job, verified=True).items) == 1
    across = client.task_pareto(task="text_lm", objectives=["loss"])
    assert (across.jobs, across.objectives) == ([job], ["loss"])
    assert across.items == client.pareto(job, ["loss"]).items
    assert client.task_pareto(job=job, max={"parameters": most}).items
    report = client.report(job)
    assert (report.job, report.metric) == (job, "loss")
    assert [member.verified.n for member in report.members] == [2]
    assert report.warnings
    with pytest.raises(ServiceError, match=r"max\.speed: unknown parameter"):
        client.pareto(job, max={"speed": 1})

    export = client.export(job, "best:loss")
    assert export.state == ExportState.QUEUED
    with pytest.raises(ServiceError, match="queued"):
        client.download_export(export.id, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_export, export.id, poll_seconds=0.05)
        scene.serve_export(b"bundle" * 1000)
        assert waiting.result(10).state == ExportState.SUCCEEDED
    into_folder = client.download_export(export.id, tmp_path)
    assert into_folder == tmp_path / f"{export.id}.zip"
    named = client.download_export(export.id, tmp_path / "mine.zip")
    assert into_folder.read_bytes() == named.read_bytes() == b"bundle" * 1000
    assert client.export_state(export.id).trial == export.trial


def test_data_sets_are_uploaded_listed_and_removed(client: Client, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"abc\n" * 1_000_000)
    data = client.add_dataset("mine", text)
    assert data.bytes == 4_000_000
    assert list(client.datasets()) == [data]
    client.delete_dataset("mine")
    assert list(client.datasets()) == []
    with pytest.raises(ServiceError, match="there is no data set a b"):
        client.delete_dataset("a b")


def test_the_catalogue_and_profiles_are_read(client: Client) -> None:
    space = load_space("tiny")
    architecture = space.sample(0)
    shape = {"sequence_length": 64}
    as_value = client.profile([architecture], **shape)
    assert as_value == client.profile([architecture.model_dump(mode="json")], **shape)
    assert as_value[0]["parameters"] > 0
    assert client.space("tiny@1")["size"] == space.size()
    assert "tiny" in [found["name"] for found in client.spaces()]
    assert client.validate_space(space.definition.model_dump(mode="json"))["valid"] is True
    assert {found["kind"] for found in client.mechanisms("halting")} == {"halting"}
    assert len(client.mechanisms()) > len(client.mechanisms("halting"))
    assert client.tasks()
    assert client.strategies()
    assert "loss" in [found["name"] for found in client.metrics()]


def test_events_come_live_to_the_end_and_waiting_ends_with_the_job(
    client: Client, scene: Scene
) -> None:
    scene.submit()
    job = scene.claim()
    with ThreadPoolExecutor(2) as pool:
        events = pool.submit(lambda: list(client.events(job.id)))
        waited = pool.submit(client.wait, job.id)
        for seed in distinct_seeds(3):
            scene.train(job, seed)
        scene.finish(job)
        found = events.result(20)
        assert waited.result(20).state == JobState.SUCCEEDED
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert found[-1].last
    # from the middle, and from the end, where nothing follows
    assert list(client.events(job.id, after=3)) == found[3:]
    assert list(client.events(job.id, after=found[-1].seq)) == []
    assert list(islice(client.events(job.id), 2)) == found[:2]


def test_events_go_on_after_the_service_came_back(
    store: Store, settings: Settings, scene: Scene
) -> None:
    scene.submit()
    job = scene.claim()
    first = Running(create_app(store, settings))
    seen: list[int] = []

    def follow() -> None:
        with Client(first.url, timeout=5) as client:
            seen.extend(event.seq for event in client.events(job.id))

    follower = threading.Thread(target=follow)
    follower.start()
    seeds = distinct_seeds(4)
    scene.train(job, seeds[0])
    time.sleep(0.2)
    first.stop()
    scene.train(job, seeds[1])
    time.sleep(0.3)
    second = Running(create_app(store, settings), port=first.port)
    scene.train(job, seeds[2])
    scene.finish(job)
    follower.join(20)
    assert not follower.is_alive()
    second.stop()
    assert seen == list(range(1, len(scene.jobs.events(job.id)) + 1))


def test_patience_ends(scene: Scene, app: FastAPI) -> None:
    server = Running(app)
    with Client(server.url) as client:
        events = client.events(scene.submit(), patience=0.3)
        assert next(events).seq == 1
        started = time.monotonic()
        server.stop()
        with pytest.raises(ServiceUnreachable):
            next(events)
        assert 0.3 < time.monotonic() - started < 10


def test_a_service_that_is_not_there_is_told_with_its_address() -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with Client(url) as client, pytest.raises(ServiceUnreachable, match=rf"{url}.*`nas serve`"):
        client.job("x")
    with Client("http://nowhere.invalid") as client, pytest.raises(ServiceUnreachable):
        list(client.jobs())
    with pytest.raises(ServiceUnreachable, match="Invalid port"):
        Client("http://[::")


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_another_program_at_the_address_is_told_from_ours() -> None:
    stranger = HTTPServer(("127.0.0.1", 0), _Stranger)
    thread = threading.Thread(target=stranger.serve_forever)
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{stranger.server_port}") as client:
            for job in ("missing", "there"):
                with pytest.raises(ServiceUnreachable, match="not ours"):
                    client.job(job)
            with pytest.raises(ServiceUnreachable):
                next(client.events("there", patience=0))
    finally:
        stranger.shutdown()
        thread.join()
        stranger.server_close()


def test_what_answers_too_late_is_told() -> None:
    with bind("127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(ServiceUnreachable, match="long"):
            client.job("x")
