"""Whole searches through HTTP: each task, a user's own text, the export, the training after it."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from nas.schemas import Job
from nas.states import JobState, TrialState
from tests.e2e.running import Service

SMALL: dict[str, Any] = {
    "fidelity": {"max_steps": 18, "min_steps": 2, "reduction_factor": 3},
    "budget": {"trials": 9},
    "training": {"batch_size": 4, "evaluation_batches": 2},
    "verification": {"seeds": 0},
}

TASKS: dict[str, dict[str, Any]] = {
    "text_lm": {
        "task": {"name": "text_lm", "dataset": "python-source", "sequence_length": 64},
        "space": "tiny",
        "strategy": {"name": "nsga2", "population_size": 4},
    },
    "image_classification": {
        "task": {"name": "image_classification"},
        "objectives": ["accuracy", "parameters"],
        "strategy": {"name": "tpe", "startup_trials": 3},
    },
    "listops": {
        "task": {
            "name": "listops",
            "min_length": 8,
            "max_length": 64,
            "train_examples": 200,
            "evaluation_examples": 50,
        },
        "strategy": {"name": "homogeneous"},
        "verification": {"members": 1, "seeds": 1},
    },
}


def finished(service: Service, request: dict[str, Any]) -> Job:
    client = service.client
    job = service.wait(client.submit(request).id)
    assert job.state is JobState.SUCCEEDED, (job.error, service.log.read_text()[-4000:])
    return job


@pytest.mark.parametrize("task", TASKS)
def test_a_search_on_each_task_ends_with_a_front(service: Service, task: str) -> None:
    job = finished(service, {**SMALL, **TASKS[task]})
    client = service.client
    trials = list(client.trials(job.id))
    assert len(trials) == 9
    states = {t.state for t in trials}
    assert states <= {TrialState.COMPLETED, TrialState.STOPPED}
    assert job.progress.rung_steps == [2, 6, 18]
    assert job.progress.rung_counts[0] == 9
    assert job.progress.rung_counts[1] >= 3
    front = client.pareto(job.id)
    assert front.items
    assert front.knee in {t.id for t in front.items}
    for trial in front.items:
        assert trial.state is TrialState.COMPLETED
        assert trial.fidelity == 1.0
        assert trial.metrics["latency_ms"] > 0
        curve = client.trial(trial.id).curve
        assert [p.steps for p in curve] == [2, 6, 18]
        assert all(p.metrics["loss"] > 0 for p in curve)
    assert len({t.fingerprint for t in trials}) == 9
    assert job.bill.core_seconds > 0


def test_verification_trains_members_again_and_the_report_tells(service: Service) -> None:
    also = [{"name": "mqar", "sequence_length": 64}]
    request = {
        **SMALL,
        **TASKS["text_lm"],
        "fidelity": {**SMALL["fidelity"], "audit": 0.5},
        "verification": {"members": 3, "seeds": 2, "share": 1, "also": also},
        "seed": 5,
    }
    job = finished(service, request)
    client = service.client
    verified = {t.id: t for t in client.trials(job.id) if t.verified}
    assert verified
    bill = job.bill
    assert bill.verification_core_seconds > 0
    report = client.report(job.id)
    assert {member.trial for member in report.members} == verified.keys()
    for member in report.members:
        trial = verified[member.trial]
        assert trial.verified is not None
        assert trial.tested is not None
        assert trial.verified["latency_ms"].mean > 0
        assert trial.tested["loss"].n == trial.verified["loss"].n == member.verified.n
        assert trial.tested["loss"].mean != trial.verified["loss"].mean
    assert {t.id for t in client.pareto(job.id, verified=True).items} <= verified.keys()
    assert report.audits.drawn >= report.audits.completed > 0
    assert [rung.steps for rung in report.rungs] == [2, 6]
    assert report.rungs[0].audited.n == report.audits.completed
    assert report.tasks[0].ranks.n <= len(verified)
    assert report.costs[0].metric == "latency_ms"
    assert report.time.share is not None
    assert 0 < report.time.share <= 1
    shown = service.nas("report", job.id)
    assert shown.returncode == 0, shown.stderr
    assert report.warnings
    assert "Trust report of" in shown.stdout


def test_a_costly_metric_that_is_named_is_measured_at_each_rung(service: Service) -> None:
    named = {"objectives": ["loss", "effective_context"], "budget": {"trials": 3}, "seed": 6}
    job = finished(service, {**SMALL, **TASKS["text_lm"], **named})
    client = service.client
    curves = [client.trial(trial.id).curve for trial in client.trials(job.id)]
    assert len(curves) == 3
    for point in (point for curve in curves for point in curve):
        assert 1 <= point.metrics["effective_context"] <= 64
    assert client.pareto(job.id).reference_point["effective_context"] == pytest.approx(1)


def test_a_users_own_text(service: Service, tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["attention", "is", "all", "you", "need", "to", "pay", "for", "quadratically"]
    text = tmp_path / "own.txt"
    text.write_text(" ".join(rng.choice(words) for _ in range(20_000)))
    added = service.nas("data", "add", str(text), "--name", "own-text", "--json")
    assert added.returncode == 0, added.stderr
    task = {"name": "text_lm", "dataset": "own-text", "sequence_length": 64}
    job = finished(service, {**SMALL, "space": "tiny", "task": task})
    best = service.client.pareto(job.id).items[0]
    assert best.metrics["loss"] < 5.55  # better than 256 equally likely bytes


def test_what_was_trained_is_not_trained_again(service: Service) -> None:
    request = {**SMALL, **TASKS["text_lm"], "seed": 3, "strategy": {"name": "random"}}
    first, second = finished(service, request), finished(service, request)
    again = list(service.client.trials(second.id))
    reused = [t for t in again if t.state is TrialState.REUSED]
    known = {t.fingerprint: t for t in service.client.trials(first.id)}
    completed = {f for f, t in known.items() if t.state is TrialState.COMPLETED}
    assert {t.fingerprint for t in reused} >= completed & {t.fingerprint for t in again}
    assert reused
    for trial in reused:
        assert trial.metrics["loss"] == known[trial.fingerprint].metrics["loss"]


def test_the_winner_is_exported_and_trains_on(service: Service, tmp_path: Path) -> None:
    job = finished(service, {**SMALL, **TASKS["text_lm"], "seed": 1})
    winner = tmp_path / "winner"
    export = service.nas(
        "export", job.id, "--trial", "best:loss", "--format", "config", "-o", str(winner)
    )
    assert export.returncode == 0, export.stderr
    config = json.loads((winner / "config.json").read_text())
    best = min(service.client.pareto(job.id).items, key=lambda t: t.metrics["loss"])
    assert config["provenance"]["trial"] == best.id
    out = tmp_path / "trained"
    command = [
        "train",
        str(winner / "config.json"),
        "--from-weights",
        "--steps",
        "60",
        "-o",
        str(out),
    ]
    trained = service.nas(*command, "--json")
    assert trained.returncode == 0, trained.stderr
    report = json.loads(trained.stdout)
    assert report["validation_after"]["loss"] < best.metrics["loss"]
    assert report["test"]["loss"] > 0
    assert (out / "model.safetensors").stat().st_size > 0


def test_the_picture(service: Service, tmp_path: Path) -> None:
    job = finished(service, {**SMALL, **TASKS["text_lm"], "seed": 2})
    plot = tmp_path / "front.png"
    shown = service.nas("pareto", job.id, "--plot", str(plot))
    assert shown.returncode == 0, shown.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(zlib.compress(plot.read_bytes())) > 10_000  # it is not blank
