from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nas.client import Client
from nas.states import JobState
from nas.store import jobs as job_rows

JOB = """
name: from-a-file
task: {name: text_lm, dataset: python-source, sequence_length: 128}
space: tiny
objectives: [loss, parameters]
constraints: [{metric: parameters, max: 2000000}]
"""
RUN = """
import sys
del sys.argv[1]
from nas.cli import main
main()
"""
INTERRUPTED_AT = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
wanted = sys.argv[1]
sys.meta_path.insert(0, Interrupt())
{RUN}"""
"""Ctrl-C as a module is about to be imported."""


def test_submit_a_yaml_file_shows_the_job_and_what_next(nas: Any, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    result = nas("submit", str(file))
    assert result.exit_code == 0
    newest = nas.json("jobs", "--limit", "1")["items"][0]
    assert f"job {newest['id']} (from-a-file) is queued" in result.stdout
    assert f"nas watch {newest['id']}" in result.stdout
    assert nas.json("show", "latest")["space"] == "tiny@1"
    nas("cancel", newest["id"])


def test_submit_reads_json_from_standard_input(nas: Any) -> None:
    # tabs are JSON, and no YAML
    job = nas.json("submit", "-", stdin='{\n\t"task": {"name": "text_lm"}, "name": "piped"}')
    assert (job["name"], job["state"]) == ("piped", "queued")
    assert nas.json("cancel", job["id"])["state"] == "cancelled"


def test_each_submission_is_a_job_of_its_own(nas: Any) -> None:
    ids = {nas.json("submit", "-", stdin=JOB)["id"] for _ in range(2)}
    assert len(ids) == 2
    for job in ids:
        nas("cancel", job)


def test_pause_resume_cancel_and_delete(nas: Any) -> None:
    job = nas.json("submit", "-", stdin=JOB)["id"]
    assert "is paused" in nas("pause", job).stdout
    assert "is queued" in nas("resume", job).stdout
    assert "--yes" in nas.refused("delete", job)
    assert "is cancelled" in nas("cancel", job).stdout
    assert "cancelled" in nas.refused("resume", job)
    assert nas.json("delete", job, "--yes") == {"deleted": job}
    assert job in nas.refused("show", job)


def test_jobs_can_be_filtered_and_limited(nas: Any, finished: str) -> None:
    found = nas.json("jobs", "--state", "succeeded")["items"]
    assert finished in [job["id"] for job in found]
    assert {job["state"] for job in found} == {"succeeded"}
    assert len(nas.json("jobs", "--limit", "1")["items"]) == 1
    assert finished in nas("jobs", "--state", "succeeded").stdout


def test_show_says_where_a_job_stands(nas: Any, finished: str) -> None:
    said = nas("show", finished).stdout
    for part in ("succeeded", "16 completed", "270 steps", "best loss", "core-seconds", "text_lm"):
        assert part in said


@pytest.mark.parametrize(
    ("ended_by", "said"), [("tolerance", "budget.tolerance is met"), ("space", "left in the space")]
)
def test_show_says_for_what_nothing_new_is_asked(
    nas: Any, service: Any, ended_by: str, said: str
) -> None:
    job_id = service.submit(name="ending")
    job = service.claim(job_id)
    assert "asks for nothing new" not in nas("show", job_id).stdout
    with service.store.write() as session:
        job_rows.end_asking(session, job.id, job.token, ended_by)
    service.finish(job, JobState.SUCCEEDED)
    assert said in nas("show", job_id).stdout


def test_watch_follows_a_job_to_its_end(nas: Any, service: Any) -> None:
    job_id = service.submit(name="watched")
    job = service.claim(job_id)

    def work() -> None:
        service.trial(job, seed=1, rung=2)
        time.sleep(0.5)
        service.trial(job, seed=2, rung=0)
        service.finish(job, JobState.SUCCEEDED)

    worker = threading.Thread(target=work)
    worker.start()
    result = nas("watch", job_id)
    worker.join()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "running" in lines[0]
    assert "succeeded" in lines[-1]
    assert "1 completed" in lines[-1]
    assert "best: loss" in lines[-1]


def test_watch_of_a_failed_job_fails_and_says_why(nas: Any, service: Any) -> None:
    job_id = service.submit(name="doomed")
    service.finish(service.claim(job_id), JobState.FAILED, "out of luck")
    result = nas("watch", job_id)
    assert result.exit_code == 1
    assert "failed: out of luck" in result.stderr
    assert nas("watch", job_id, "--json").exit_code == 1


def test_watch_as_json_prints_every_event_on_a_line(nas: Any, finished: str) -> None:
    result = nas("watch", finished, "--json")
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len(events) > 24


def test_watch_in_a_terminal_draws_the_rungs(
    nas: Any, service: Any, finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    result = nas("watch", finished)
    assert result.exit_code == 0
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", result.stdout)
    assert re.search(r"30 steps +█+ 24\b", drawn)
    assert re.search(r"270 steps +█+ 16\b", drawn)
    assert "24 of 48 trials" in drawn


def test_submit_and_watch_as_json_starts_with_the_job(nas: Any, service: Any) -> None:
    def work() -> None:
        submitted: list[str] = []
        while not submitted:
            submitted = [job["id"] for job in nas.fetch("/v1/jobs?state=queued")["items"]]
            time.sleep(0.05)
        service.finish(service.claim(submitted[0]), JobState.SUCCEEDED)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    result = nas("submit", "-", "--watch", "--json", stdin=JOB)
    worker.join(10)
    assert result.exit_code == 0
    job, *events = [json.loads(line) for line in result.stdout.splitlines()]
    assert job["name"] == "from-a-file"
    assert events[0]["seq"] == 1


def test_interrupted_watch_says_that_the_job_goes_on(nas: Any, service: Any) -> None:
    job_id = service.submit(name="long")
    job = service.claim(job_id)
    watching = nas.start("watch", job_id, "--url", nas.url)
    assert watching.stdout is not None
    assert "running" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=10)
    assert watching.returncode == 130
    assert f"nas watch {job_id} --url {nas.url}" in said
    assert f"nas cancel {job_id}" in said
    assert "Traceback" not in said
    assert nas.json("show", job_id)["state"] == "running"
    service.finish(job, JobState.SUCCEEDED)


def test_a_watch_that_ends_early_leaves_its_listener_in_peace(
    nas: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = service.submit(name="left")
    job = service.claim(job_id)
    faults: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    before, listeners = set(threading.enumerate()), []
    show, shown = Client.job, 0

    def interrupted(client: Client, asked: str) -> Any:
        nonlocal shown
        if threading.current_thread() is threading.main_thread():
            shown += 1
            if shown == 2:
                listeners.extend(set(threading.enumerate()) - before)
                raise KeyboardInterrupt
        return show(client, asked)

    monkeypatch.setattr(Client, "job", interrupted)
    result = nas("watch", job_id)
    assert result.exit_code == 130
    assert f"nas cancel {job_id}" in result.stderr
    service.finish(job, JobState.SUCCEEDED)
    assert listeners
    for listener in listeners:
        listener.join(10)
        assert not listener.is_alive()
    assert faults == []


@pytest.mark.parametrize(
    ("module", "hint"), [("typer", False), ("nas.schemas", True), ("httpx", True)]
)
def test_interrupted_while_it_starts_it_ends_quietly(nas: Any, module: str, hint: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT, module, "watch", "job_x", "--url", nas.url],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 130
    assert done.stdout == ""
    assert ("nas cancel job_x" in done.stderr) is hint
    assert ("Traceback" not in done.stderr) if hint else (done.stderr == "")


def test_interrupted_while_it_exits_it_ends_quietly(nas: Any, finished: str) -> None:
    program = f"import atexit, os\natexit.register(os.kill, os.getpid(), 2)\n{RUN}"
    command = [sys.executable, "-c", program, "-", "show", finished, "--json", "--url", nas.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 130
    assert json.loads(done.stdout)["id"] == finished
    assert done.stderr == ""
