"""`nas report` at a terminal of 80 columns, and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nas.states import JobState
from nas.store import trials, verifications
from nas.store.records import TransferRecord
from nas.store.tables import MeasurementRow


@pytest.fixture(scope="session")
def judged(service: Any) -> str:
    """A job with something in every part of its report."""
    also = [{"name": "text_lm", "sequence_length": 64}]
    objectives = ["loss", "latency_ms", "parameters"]
    job = service.claim(
        service.submit(name="judged", objectives=objectives, verification={"also": also})
    )
    made = [service.trial(job, seed, rung=2) for seed in range(30, 36)]
    with service.store.write() as session:
        for i, trial in enumerate(made[:4]):
            for seed in (1, 2):
                metrics = {"loss": trial.metrics["loss"] + 0.02 * seed}
                test = {"loss": trial.metrics["loss"] + 0.1 + 0.01 * seed}
                trials.add_verification(session, trial.id, job.token, seed, metrics, test=test)
            other = TransferRecord(trial.id, 0, 1, {"loss": 3.0 + i})
            verifications.add_transfer(session, job.id, job.token, other)
            session.add(
                MeasurementRow(
                    trial_id=trial.id,
                    metric="latency_ms",
                    predicted=4.0 + i,
                    measured=5.0 + i,
                    low=3.0 + i,
                    high=6.0 + i,
                    alone=True,
                    finished_at=datetime.now(UTC),
                )
            )
        rounds = {t.id: [5.0 + i, 5.1 + i, 5.0 + i] for i, t in enumerate(made[:4])}
        verifications.put_rounds(session, job.id, job.token, rounds, alone=True)
    service.finish(job, JobState.SUCCEEDED)
    return str(job.id)


def test_it_is_the_services_report(nas: Any, judged: str) -> None:
    assert nas.json("report", judged) == nas.fetch(f"/v1/jobs/{judged}/report")


def test_it_can_be_read_in_80_columns(
    nas: Any, judged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = nas("report", judged)
    assert result.exit_code == 0, result.stderr
    said = result.stdout
    assert max(map(len, said.splitlines())) <= 80
    report = nas.json("report", judged)
    # every warning is there, however it is wrapped
    words = " ".join(said.split())
    for warning in (*report["warnings"], *report["irreproducible"]):
        assert " ".join(warning.split()) in words
    assert "too few" in said
    (cost,) = report["costs"]
    assert f"{cost['error']:.1%}" in said
    assert "4.000 was 5.000" in words
    for member in report["members"]:
        assert f"{member['verified']['low']:.3f}–{member['verified']['high']:.3f}" in said
        assert f"{member['tested']['mean']:.3f}" in said
    assert "spread of latency_ms" in said
    assert "on text_lm" in said
    assert "training" in said


def test_a_report_of_next_to_nothing_is_no_failure(nas: Any, service: Any) -> None:
    job = service.submit(name="waiting-for-a-report")
    said = nas("report", job)
    assert said.exit_code == 0
    assert "The job is queued" in said.stdout
    assert "nothing was measured" in said.stdout
    nas("cancel", job)
