"""Trials: numbers, transitions, curves, reuse, and what a job's end does to them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sqlalchemy import func, select

from nas.catalogue.metrics import METRICS
from nas.errors import Conflict, LeaseLost, NotFound
from nas.states import JobState, TrialState
from nas.store import events, jobs, leases, reuse, trials
from nas.store.records import TrialRecord
from nas.store.tables import Metrics, RungRow
from search_spaces import Architecture

COSTS = {"parameters": 1000.0, "flops": 5e9}
ONE = Architecture.model_validate(
    {
        "width": 16,
        "layers": [{"attention": {"type": "full"}, "feedforward": {"type": "dense"}}],
        "position": "sinusoidal",
    }
)


def _all(lab: Any, job: Any) -> list[TrialRecord]:
    with lab.store.read() as session:
        return trials.all(session, job.id)


def test_there_is_a_column_for_each_metric_and_for_nothing_else() -> None:
    columns = {name for base in Metrics.__mro__ for name in vars(base).get("__annotations__", {})}
    assert columns == set(METRICS)


def test_trials_are_numbered_from_one_and_come_back_as_they_went_in(lab: Any) -> None:
    job = lab.running()
    made = [lab.insert(job, i, costs=COSTS, origin="mutation", seed=7 + i) for i in range(3)]
    assert [trial.number for trial in made] == [1, 2, 3]
    with lab.store.read() as session:
        found = trials.all(session, job.id)
    assert found == made
    assert found[0].metrics == {"parameters": 1000.0, "flops": 5e9}
    assert found[0].homogeneous
    assert not found[1].homogeneous
    assert found[1].attention == ["full", "linear"]


def test_a_trial_that_starts_at_once_tells_of_both(lab: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        before = jobs.record(session, job.id).last_seq
        made = trials.insert_started(
            session,
            job.id,
            job.token,
            architecture=ONE,
            origin="random",
            seed=1,
            costs=COSTS,
        )
    assert lab.trial(made.id) == made
    assert (made.number, made.state, made.active_rung) == (1, TrialState.RUNNING, 0)
    assert made.started_at is not None
    with lab.store.read() as session:
        told = events.after(session, job.id, before)
        assert jobs.record(session, job.id).last_seq == before + 2
    assert [(e.seq, e.data["trial"], e.data["state"]) for e in told] == [
        (before + 1, made.id, "waiting"),
        (before + 2, made.id, "running"),
    ]
    lab.insert(job, 4)
    assert [trial.number for trial in _all(lab, job)] == [1, 2]


def test_an_architecture_enters_a_job_once(lab: Any) -> None:
    job = lab.running()
    lab.insert(job, 5)
    with pytest.raises(Conflict, match="is trial 1"):
        lab.insert(job, 5)
    assert lab.insert(job, 6).number == 2


def test_a_trial_climbs_the_rungs(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job, costs=COSTS)
    lab.train(job, trial, {"loss": 2.5, "accuracy": 0.2}, rung=0)
    half = lab.trial(trial.id)
    assert (half.state, half.rung, half.steps) == (TrialState.PAUSED, 0, 30)
    assert half.fidelity == pytest.approx(1 / 9)
    assert half.metrics == {"loss": 2.5, "accuracy": 0.2, **COSTS}
    lab.train(job, trial, {"loss": 2.0}, rung=1)
    lab.train(job, trial, {"loss": 1.5, "latency_ms": 3.0}, rung=2)
    full = lab.trial(trial.id)
    assert (full.state, full.rung, full.steps, full.fidelity) == (TrialState.COMPLETED, 2, 270, 1.0)
    assert full.metrics["loss"] == 1.5
    assert [(p.rung, p.steps, p.metrics) for p in full.curve] == [
        (0, 30, {"loss": 2.5, "accuracy": 0.2}),
        (1, 90, {"loss": 2.0}),
        (2, 270, {"loss": 1.5}),
    ]
    assert full.finished_at is not None
    assert full.training_seconds == 6.0
    assert lab.record(job.id).search_core_seconds == 9.0


def test_a_rung_is_recorded_once(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    lab.train(job, trial, {"loss": 2.5}, rung=0)
    before = lab.trial(trial.id), lab.record(job.id).last_seq
    with pytest.raises(Conflict, match="has finished rung 0 already"):
        lab.train(job, trial, {"loss": 1.0}, rung=0)
    assert (lab.trial(trial.id), lab.record(job.id).last_seq) == before
    with lab.store.read() as session:
        assert session.scalar(select(func.count()).select_from(RungRow)) == 1


def test_a_rung_of_a_trial_that_does_not_run_is_refused(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    with pytest.raises(Conflict, match="waiting cannot become paused"), lab.store.write() as s:
        trials.finish_rung(
            s,
            trial.id,
            job.token,
            rung=0,
            steps=30,
            metrics={"loss": 1.0},
            training_seconds=1,
            evaluation_seconds=1,
            state=TrialState.PAUSED,
        )
    assert lab.trial(trial.id) == trial


@pytest.mark.parametrize(
    ("metrics", "complaint"),
    [({"beauty": 1.0}, "not a metric"), ({"loss": math.nan}, "nan"), ({"loss": math.inf}, "inf")],
)
def test_what_is_no_measurement_is_refused(
    lab: Any, metrics: dict[str, float], complaint: str
) -> None:
    job = lab.running()
    trial = lab.insert(job)
    with pytest.raises(ValueError, match=complaint):
        lab.train(job, trial, metrics, rung=0)
    assert lab.trial(trial.id) == trial


def test_final_states_are_final(lab: Any) -> None:
    job = lab.running()
    completed, failed, stopped = (lab.insert(job, i) for i in range(3))
    lab.train(job, completed, {"loss": 1.0})
    with lab.store.write() as session:
        trials.fail(session, failed.id, job.token, "diverged at step 3")
        trials.stop(session, [stopped.id], job.token)
    assert lab.trial(failed.id).error == "diverged at step 3"
    for trial in (completed, failed, stopped):
        before = lab.trial(trial.id)
        for write in (
            lambda s, t=trial: trials.start(s, t.id, job.token, 0),
            lambda s, t=trial: trials.stop(s, [t.id], job.token),
            lambda s, t=trial: trials.fail(s, t.id, job.token, "again"),
            lambda s, t=trial: trials.interrupt(s, t.id, job.token),
        ):
            with pytest.raises(Conflict), lab.store.write() as session:
                write(session)
        assert lab.trial(trial.id) == before


def test_many_are_stopped_together_and_told_of_one_by_one(lab: Any) -> None:
    job = lab.running()
    with lab.together():
        made = [lab.insert(job, i) for i in range(20)]
    before = lab.record(job.id).last_seq
    with lab.store.write() as session:
        trials.stop(session, [trial.id for trial in reversed(made)], job.token)
        trials.stop(session, [], job.token)
    with lab.store.read() as session:
        told = events.after(session, job.id, before)
    assert [(e.seq - before, e.data["number"]) for e in told] == [(i, i) for i in range(1, 21)]
    with pytest.raises(NotFound), lab.store.write() as session:
        trials.stop(session, [made[0].id, "trial_unknown"], job.token)


def test_an_error_may_hold_anything(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    with lab.store.write() as session:
        trials.fail(session, trial.id, job.token, "zero \0 and ∞")
        jobs.finish(session, job.id, job.token, JobState.FAILED, "zero \0")
    assert lab.trial(trial.id).error == "zero  and ∞"
    assert lab.record(job.id).error == "zero "


def test_stopping_several_is_all_or_nothing(lab: Any) -> None:
    job = lab.running()
    first, second = lab.insert(job, 0), lab.insert(job, 1)
    with lab.store.write() as session:
        trials.stop(session, [second.id], job.token)
    with pytest.raises(Conflict), lab.store.write() as session:
        trials.stop(session, [first.id, second.id], job.token)
    assert lab.trial(first.id).state == TrialState.WAITING


def test_an_interrupted_trial_goes_back_to_its_last_rung_and_keeps_its_aim(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    for rung, state in ((0, TrialState.WAITING), (1, TrialState.PAUSED)):
        with lab.store.write() as session:
            assert trials.start(session, trial.id, job.token, rung).active_rung == rung
            back = trials.interrupt(session, trial.id, job.token)
        assert (back.state, back.active_rung) == (state, rung)
        lab.train(job, trial, {"loss": 2.0}, rung=rung)
        assert lab.trial(trial.id).active_rung is None


def test_measured_metrics_replace_predicted_ones_in_any_state(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job, costs={"latency_ms": 9.0})
    lab.train(job, trial, {"loss": 1.0})
    with lab.store.write() as session:
        trials.set_metrics(session, trial.id, job.token, {"latency_ms": 4.5})
    assert lab.trial(trial.id).metrics == {"loss": 1.0, "latency_ms": 4.5}


def test_measuring_is_billed(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    lab.train(job, trial, {"loss": 1.0})
    trained, billed = lab.trial(trial.id), lab.record(job.id).search_core_seconds
    with lab.store.write() as session:
        trials.set_metrics(
            session,
            trial.id,
            job.token,
            {"effective_context": 16.0},
            evaluation_seconds=2.0,
            core_seconds=4.0,
        )
    measured = lab.trial(trial.id)
    assert measured.metrics == {"loss": 1.0, "effective_context": 16.0}
    assert measured.evaluation_seconds == trained.evaluation_seconds + 2.0
    assert lab.record(job.id).search_core_seconds == billed + 4.0


def test_a_verification_is_recorded_once_for_each_seed_and_billed_apart(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    lab.train(job, trial, {"loss": 1.0})
    with lab.store.write() as session:
        for seed, loss in ((11, 1.2), (12, 1.4)):
            trials.add_verification(session, trial.id, job.token, seed, {"loss": loss}, 8.0)
    with pytest.raises(Conflict), lab.store.write() as session:
        trials.add_verification(session, trial.id, job.token, 11, {"loss": 0.1}, 8.0)
    found = [(v.seed, v.metrics) for v in lab.trial(trial.id).verifications]
    assert found == [(11, {"loss": 1.2}), (12, {"loss": 1.4})]
    record = lab.record(job.id)
    assert (record.search_core_seconds, record.verification_core_seconds) == (3.0, 16.0)


def test_results_are_reused_for_the_same_key_and_architecture_only(lab: Any) -> None:
    first = lab.running()
    lab.begin(first)
    done, half = lab.insert(first, 0), lab.insert(first, 1)
    lab.train(first, done, {"loss": 1.0})
    lab.train(first, half, {"loss": 2.0}, rung=0)
    with lab.store.read() as session:
        found = reuse.reusable(session, done.fingerprint, "result")
        assert reuse.reusable(session, half.fingerprint, "result") is None
        assert reuse.reusable(session, done.fingerprint, "other") is None
    assert found is not None
    assert found.id == done.id
    assert [point.rung for point in found.curve] == [2]

    second = lab.running()
    lab.begin(second)
    reused = lab.insert(
        second,
        0,
        state=TrialState.REUSED,
        reused_from=found.id,
        metrics=found.metrics,
        rung=found.rung,
    )
    assert (reused.fidelity, reused.steps, reused.rung) == (1.0, 270, 2)
    assert reused.metrics == {"loss": 1.0}
    with lab.store.read() as session:
        again = reuse.reusable(session, done.fingerprint, "result")
    assert again is not None
    assert again.id == done.id  # the one that was trained


def test_a_result_without_a_metric_that_is_wanted_is_not_known(lab: Any) -> None:
    wanted = ("loss", "effective_context", "latency_ms")
    plain = lab.running()
    lab.begin(plain)
    trial = lab.insert(plain)
    lab.train(plain, trial, {"loss": 1.0})
    with lab.store.read() as session:
        assert reuse.reusable(session, trial.fingerprint, "result", wanted) is None
        assert reuse.reusable(session, trial.fingerprint, "result", ("loss",)) is not None
    telling = lab.running()
    lab.begin(telling)
    again = lab.insert(telling)
    lab.train(telling, again, {"loss": 1.0, "effective_context": 8.0})
    with lab.store.read() as session:
        found = reuse.reusable(session, trial.fingerprint, "result", wanted)
    assert found is not None
    assert found.id == again.id


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_job_that_ends_leaves_no_open_trials(lab: Any, end: JobState) -> None:
    job = lab.running()
    waiting, running, paused, completed = (lab.insert(job, i) for i in range(4))
    with lab.store.write() as session:
        trials.start(session, running.id, job.token, 0)
    lab.train(job, paused, {"loss": 2.0}, rung=0)
    lab.train(job, completed, {"loss": 1.0})
    with lab.store.write() as session:
        jobs.finish(session, job.id, job.token, end, "why" if end == JobState.FAILED else None)
    record = lab.record(job.id)
    assert (record.state, record.worker) == (end, None)
    assert record.error == ("why" if end == JobState.FAILED else None)
    assert record.finished_at is not None
    states = [lab.trial(t.id).state for t in (waiting, running, paused, completed)]
    assert states == [TrialState.STOPPED] * 3 + [TrialState.COMPLETED]


@pytest.mark.parametrize(
    ("control", "end"), [(jobs.pause, JobState.SUCCEEDED), (jobs.cancel, JobState.SUCCEEDED)]
)
def test_a_job_that_was_told_otherwise_cannot_succeed(lab: Any, control: Any, end: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        control(session, job.id)
    with pytest.raises(Conflict), lab.store.write() as session:
        jobs.finish(session, job.id, job.token, end)
    with lab.store.write() as session:
        leases.release_job(session, job.id, job.token)


def test_what_a_job_is_measured_against_is_fixed_once(lab: Any) -> None:
    job = lab.running()
    scales = {"loss": {"low": 0.0, "high": 3.2, "log": False, "maximize": False}}
    lab.begin(job, trivial_loss=3.2, scales=scales)
    lab.begin(job, trivial_loss=3.2, scales=scales)
    record = lab.record(job.id)
    assert (record.task_key, record.result_key, record.trivial_loss) == ("task", "result", 3.2)
    assert record.scales is not None
    assert record.scales["loss"]["high"] == 3.2
    with pytest.raises(Conflict):
        lab.begin(job, result_key="another", trivial_loss=3.2, scales=scales)


def test_an_unknown_trial_is_not_found_and_a_deleted_one_is_lost(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    with lab.store.write() as session:
        jobs.finish(session, job.id, job.token, JobState.FAILED)
        gone = jobs.delete(session, job.id)
    assert gone.trial_ids == (trial.id,)
    with pytest.raises(NotFound):
        lab.trial(trial.id)
    with pytest.raises(LeaseLost), lab.store.write() as session:
        trials.start(session, trial.id, job.token, 0)
