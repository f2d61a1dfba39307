"""What cannot work is refused at the earliest moment, clearly, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from nas.states import JobState
from tests.e2e.running import NAS, Service

TEXT = {"name": "text_lm", "sequence_length": 64}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"task": TEXT, "colour": "red"}, "/colour"),
    "unknown nested key": ({"task": {**TEXT, "colour": "red"}}, "/task/colour"),
    "no task": ({}, "/task"),
    "unknown task": ({"task": {"name": "chess"}}, "/task"),
    "unknown space": ({"task": TEXT, "space": "huge"}, "/space"),
    "unknown version": ({"task": TEXT, "space": "tiny@99"}, "/space"),
    "encoder space": ({"task": TEXT, "space": "efficient-encoder"}, "/space"),
    "encoder mechanism in a causal space": (
        {
            "task": TEXT,
            "space": {
                "causal": True,
                "width": [32],
                "depth": [1],
                "heads": [2],
                "attention": ["linformer"],
            },
        },
        "/space/attention/0",
    ),
    "unknown objective": ({"task": TEXT, "objectives": ["beauty"]}, "/objectives/0"),
    "repeated objective": ({"task": TEXT, "objectives": ["loss", "loss"]}, "/objectives"),
    "budget of zero": ({"task": TEXT, "budget": {"trials": 0}}, "/budget/trials"),
    "no budget": ({"task": TEXT, "budget": {}}, "/budget"),
    "empty constraint": ({"task": TEXT, "constraints": [{"metric": "loss"}]}, "/constraints/0"),
    "rungs upside down": (
        {"task": TEXT, "fidelity": {"max_steps": 3, "min_steps": 9}},
        "/fidelity",
    ),
    "unknown data set": ({"task": {**TEXT, "dataset": "nowhere"}}, "/task/dataset"),
    "unknown strategy": ({"task": TEXT, "strategy": {"name": "luck"}}, "/strategy"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_pointer_and_no_row(service: Service, case: str) -> None:
    document, pointer = REFUSED[case]
    before = httpx.get(f"{service.url}/v1/jobs").json()["items"]
    answer = httpx.post(f"{service.url}/v1/jobs", json=document)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    pointers = [e["pointer"] for e in answer.json()["errors"]]
    assert any(p.startswith(pointer) for p in pointers), answer.json()
    assert all(e["message"] for e in answer.json()["errors"])
    assert httpx.get(f"{service.url}/v1/jobs").json()["items"] == before


def test_a_job_file_that_is_refused_exits_with_2(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("task: {name: text_lm}\nspace: huge\n")
    refused = service.nas("submit", str(file))
    assert refused.returncode == 2
    assert "/space" in refused.stderr
    assert "efficient-lm" in refused.stderr


@pytest.mark.parametrize(("content", "says"), [(b"", "empty"), (b"too short", "bytes")])
def test_a_text_that_is_empty_or_too_short(
    service: Service, tmp_path: Path, content: bytes, says: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(content)
    added = service.nas("data", "add", str(text), "--name", "short-text")
    if content:
        assert added.returncode == 0, added.stderr
        task = {**TEXT, "dataset": "short-text"}
        answer = httpx.post(f"{service.url}/v1/jobs", json={"task": task})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/task/dataset"
        assert says in answer.text
        assert service.nas("data", "rm", "short-text").returncode == 0
    else:
        assert added.returncode == 2
        assert says in added.stderr


def test_a_constraint_that_nothing_can_satisfy_is_said_before_anything_trains(
    service: Service,
) -> None:
    client = service.client
    constraint = {"metric": "parameters", "max": 10}
    job = client.submit({"task": TEXT, "space": "tiny", "constraints": [constraint]})
    job = service.wait(job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "parameters ≤ 10" in job.error
    assert not list(client.trials(job.id))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NAS, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run("serve", "--port", port, "--data", str(tmp_path / "data"))
    assert refused.returncode == 2
    assert port in refused.stderr
    assert "--port" in refused.stderr


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    file = tmp_path / "not-a-database"
    file.write_text("hello, this is no database at all, just some text\n" * 50)
    data = str(tmp_path / "data")
    refused = run("serve", "--port", "0", "--data", data, "--database", f"sqlite:///{file}")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "not a database" in refused.stderr


def test_a_ray_that_cannot_be_reached(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert run("db", "upgrade", "--data", data).returncode == 0
    refused = run("worker", "--data", data, "--ray-address", "127.0.0.1:1")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert "127.0.0.1:1" in refused.stderr


def test_a_service_that_is_not_there() -> None:
    refused = run("jobs", "--json", NAS_URL="http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "nas serve" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_job_and_an_illegal_transition(service: Service) -> None:
    missing = httpx.get(f"{service.url}/v1/jobs/job_nowhere")
    assert missing.status_code == 404
    assert json.loads(missing.text)["title"]
    done = httpx.get(f"{service.url}/v1/jobs?state=failed").json()["items"]
    for job in done[:1]:
        assert httpx.post(f"{service.url}/v1/jobs/{job['id']}/pause").status_code == 409
