"""The search of a job as a source of segments, against a real store and without Ray."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.billing import Rates
from nas.errors import LeaseLost, NasError, TrialFailed
from nas.jobs import Jobs
from nas.schemas import JobRequest
from nas.search import create_strategy
from nas.search.rungs import Rungs
from nas.settings import Settings
from nas.states import JobState, TrialState
from nas.store import Store, leases
from nas.store import jobs as job_rows
from nas.store import trials as trial_rows
from nas.store.migrate import upgrade
from nas.store.records import JobRecord, TrialRecord
from search_spaces import Architecture, load_space
from workers.patience import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE_SECONDS
from workers.search import FRUITLESS_TRIALS, GIVEN_UP_TRIALS, LOST_SEGMENTS, Plan, Search
from workers.segments import Assignment, Outcome
from workers.tuning import Finished, SegmentSearcher

REQUEST: dict[str, Any] = {
    "task": {"name": "text_lm", "sequence_length": 64},
    "space": "tiny",
    "objectives": ["loss", "parameters"],
    "strategy": {"name": "nsga2", "population_size": 4},
    "fidelity": {"max_steps": 27, "min_steps": 3, "reduction_factor": 3, "audit": 0},
    "budget": {"trials": 18},
}


class Bed:
    """A job in a fresh store, claimed, with whatever lives it takes to finish it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder)
        upgrade(self.settings.database_url)
        self.store = Store(self.settings.database_url)
        self.elapsed = 0.0

    def submit(self, **changes: Any) -> str:
        request = JobRequest.model_validate({**REQUEST, **changes})
        job, _ = Jobs(self.store, self.settings).submit(request)
        return job.id

    def claim(self) -> JobRecord:
        with self.store.write() as session:
            job = leases.claim_job(session, "worker", 30)
            assert job is not None
            job_rows.begin(
                session,
                job.id,
                job.token,
                task_key="task",
                result_key=f"result {job.request['fidelity']['max_steps']}",
                data_hash="data",
                trivial_loss=5.0,
                scales={},
            )
            return job_rows.record(session, job.id)

    def search(self, job: JobRecord) -> Search:
        request = JobRequest.model_validate(job.request)
        objectives = list(request.objectives)
        strategy = create_strategy(
            request.strategy.name,
            space=load_space("tiny"),
            objectives=objectives,
            seed=request.seed,
            known_costs=costs,
            **request.strategy.model_dump(exclude={"name"}),
        )
        rungs: Rungs[int] = Rungs(request.fidelity.rungs(), 3, objectives, audit=0.0)
        plan = Plan(
            job=job,
            request=request,
            strategy=strategy,
            rungs=rungs,
            costs=costs,
            checkpoints=self.settings.checkpoints / job.id,
            elapsed=lambda: self.elapsed,
            draining=lambda: False,
            rates=Rates(1e-6, 1.0),
        )
        return Search(self.store, plan)

    def trials(self, job: str) -> list[TrialRecord]:
        with self.store.read() as session:
            return trial_rows.all(session, job)


def costs(arch: Architecture) -> dict[str, float]:
    return {"parameters": float(arch.width * arch.depth * 100)}


def train(assignment: Assignment) -> Outcome:
    """Wider and longer is better, a little differently for each architecture."""
    arch = Architecture.model_validate_json(assignment.architecture)
    noise = random.Random(assignment.architecture).random()
    loss = 5.0 - 0.01 * arch.width - 0.05 * assignment.to_steps + 0.1 * noise
    metrics = {"loss": loss, "accuracy": 0.1, "expected_depth": float(arch.depth)}
    return Outcome("finished", assignment.to_steps, metrics, 1.0, 0.5)


def drive(search: Search, slots: int = 2, stop_after: int | None = None) -> Iterator[Assignment]:
    """Run segments until the search is finished, in a shuffled order of ends; yields each ended."""
    rng = random.Random(0)
    running: list[Assignment] = []
    ended = 0
    while True:
        chosen = search.next() if len(running) < slots else None
        if isinstance(chosen, Finished):
            return
        if chosen is not None:
            running.append(chosen)
            continue
        if stop_after is not None and ended >= stop_after:
            return
        assert running, "nothing runs and nothing is finished: a stuck job"
        assignment = running.pop(rng.randrange(len(running)))
        search.ended(assignment, train(assignment))
        ended += 1
        yield assignment


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def test_a_search_fills_the_rungs(bed: Bed) -> None:
    counts = []
    for seed in range(5):  # how many are promoted depends on who comes first
        job_id = bed.submit(seed=seed, reuse=False)
        search = bed.search(bed.claim())
        segments = list(drive(search))
        search.close()
        trials = bed.trials(job_id)
        assert len(trials) == 18
        counts.append([sum(a.rung == r for a in segments) for r in range(3)])
        assert {t.state for t in trials} == {TrialState.STOPPED, TrialState.COMPLETED}
        assert all([p.rung for p in t.curve] == list(range(len(t.curve))) for t in trials)
    first, second, third = (statistics.median(at_rung) for at_rung in zip(*counts, strict=True))
    assert first == 18
    assert 6 <= second <= 12  # asynchronous: the early best of few are promoted, too
    assert 2 <= third <= second / 2


@pytest.mark.parametrize("lives", [1, 3, 7])
def test_however_often_it_is_killed_nothing_is_lost_or_repeated(bed: Bed, lives: int) -> None:
    job_id = bed.submit()
    segments: list[tuple[str, int]] = []
    for life in range(lives):
        job = bed.claim()
        search = bed.search(job)
        last = life == lives - 1
        ended = drive(search, stop_after=None if last else 5)
        segments += [(a.trial, a.rung) for a in ended]
        if not last:  # a killed process says nothing: its lease runs out
            with bed.store.write() as session:
                leases.renew_job(session, job.id, job.token, -1)
    trials = bed.trials(job_id)
    assert len(segments) == len(set(segments))
    assert sorted(segments) == sorted((t.id, p.rung) for t in trials for p in t.curve)
    assert len(trials) == 18
    assert sum(len(t.curve) > 1 for t in trials) >= 6
    assert sum(t.state is TrialState.COMPLETED for t in trials) >= 2


def test_a_process_that_lost_its_lease_writes_nothing(bed: Bed) -> None:
    job_id = bed.submit()
    old = bed.claim()
    search = bed.search(old)
    assignment = search.next()
    assert isinstance(assignment, Assignment)
    with bed.store.write() as session:
        leases.renew_job(session, old.id, old.token, -1)
    bed.claim()
    with pytest.raises(LeaseLost):
        search.ended(assignment, train(assignment))
    with pytest.raises(LeaseLost):
        search.next()
    assert all(not t.curve for t in bed.trials(job_id))


def test_an_interrupted_promotion_goes_on_first(bed: Bed) -> None:
    bed.submit()
    job = bed.claim()
    search = bed.search(job)
    running: Assignment | None = None
    for _ in range(40):
        chosen = search.next()
        assert isinstance(chosen, Assignment)
        if chosen.rung:
            running = chosen
            break
        search.ended(chosen, train(chosen))
    assert running is not None
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, -1)
    again = bed.search(bed.claim()).next()
    assert isinstance(again, Assignment)
    assert (again.trial, again.rung) == (running.trial, running.rung)


def test_a_failed_trial_ends_alone(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    search.ended(first, Outcome("failed", 0, {}, 0.0, 0.0, "diverged at step 2: loss is nan"))
    list(drive(search))
    failed = [t for t in bed.trials(job_id) if t.state is TrialState.FAILED]
    assert [t.error for t in failed] == ["diverged at step 2: loss is nan"]
    assert len(bed.trials(job_id)) == 18


def test_a_trial_that_keeps_killing_its_process_fails(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    for _ in range(LOST_SEGMENTS - 1):
        search.lost(first)
        again = search.next()
        assert isinstance(again, Assignment)
        assert (again.trial, again.rung) == (first.trial, first.rung)
    search.lost(first)
    (trial,) = [t for t in bed.trials(job_id) if t.id == first.trial]
    assert trial.state is TrialState.FAILED
    assert trial.error is not None
    assert "died" in trial.error


def test_known_results_are_reused_and_not_counted(bed: Bed) -> None:
    first = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9})
    job = bed.claim()
    search = bed.search(job)
    list(drive(search))
    search.close()
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, -1)
        leases.release_job(session, job.id, job.token)
    Jobs(bed.store, bed.settings).cancel(first)
    completed = {t.fingerprint: t for t in bed.trials(first) if t.state is TrialState.COMPLETED}
    assert completed
    second = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9})
    list(drive(bed.search(bed.claim())))
    trials = bed.trials(second)
    reused = {t.fingerprint: t for t in trials if t.state is TrialState.REUSED}
    assert reused.keys() == completed.keys()
    assert len(trials) == 9 + len(reused)
    for fingerprint, trial in reused.items():
        assert trial.metrics["loss"] == completed[fingerprint].metrics["loss"]
        assert trial.reused_from == completed[fingerprint].id


def test_results_that_lack_a_named_metric_are_trained_again(bed: Bed) -> None:
    first = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9})
    job = bed.claim()
    search = bed.search(job)
    list(drive(search))
    search.close()
    with bed.store.write() as session:
        job_rows.finish(session, job.id, job.token, JobState.SUCCEEDED)
    bound = {"metric": "effective_context", "min": 1}
    second = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9}, constraints=[bound])
    list(drive(bed.search(bed.claim())))
    completed = {t.fingerprint for t in bed.trials(first) if t.state is TrialState.COMPLETED}
    again = bed.trials(second)
    assert completed & {t.fingerprint for t in again}
    assert all(t.state is not TrialState.REUSED for t in again)


@pytest.mark.parametrize(
    ("budget", "segments"),
    [({"full_trainings": 1.0}, (9, 11)), ({"energy_kwh": 1.4e-5}, (9, 11))],
)
def test_a_bound_that_is_met_starts_nothing_more(
    bed: Bed, budget: dict[str, float], segments: tuple[int, int]
) -> None:
    bed.submit(budget=budget)
    low, high = segments
    ended = list(drive(bed.search(bed.claim())))
    steps = sum(a.to_steps - (0, 3, 9)[a.rung] for a in ended)
    if "full_trainings" in budget:
        assert 27 <= steps <= 27 + 18
    else:
        assert low <= len(ended) <= high


def test_energy_counts_as_measured_where_it_is_and_is_billed_once(bed: Bed) -> None:
    job_id = bed.submit(budget={"energy_kwh": 4.5e-3})
    search = bed.search(bed.claim())
    for _ in range(2):
        assignment = search.next()
        assert isinstance(assignment, Assignment)
        search.ended(assignment, replace(train(assignment), joules=7200.0))
    lost = search.next()
    assert isinstance(lost, Assignment)
    search.ended(lost, replace(train(lost), kind="failed", reason="no luck", joules=3600.0))
    with bed.store.read() as session:
        job = job_rows.record(session, job_id)
    assert job.search_metered_kwh == pytest.approx(5e-3)
    assert job.search_metered_core_seconds == job.search_core_seconds == 4.5
    assert isinstance(search.next(), Finished)  # by the estimate it would be far from its bound
    again = bed.search(job)  # so it would be for who takes it up now
    assert isinstance(again.next(), Finished)


def test_a_new_trial_is_written_and_started_at_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    written = 0
    write = bed.store.write

    def counted() -> Any:
        nonlocal written
        written += 1
        return write()

    monkeypatch.setattr(bed.store, "write", counted)
    assert isinstance(search.next(), Assignment)
    assert written == 1
    (trial,) = bed.trials(job_id)
    assert (trial.state, trial.active_rung) == (TrialState.RUNNING, 0)


def test_time_that_is_up_starts_nothing_more(bed: Bed) -> None:
    bed.submit(budget={"wall_seconds": 10.0})
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    bed.elapsed = 10.0
    assert search.next() is None  # one is running still
    search.ended(first, train(first))
    assert isinstance(search.next(), Finished)


def test_failures_are_charged(bed: Bed) -> None:
    job_id = bed.submit(budget={"full_trainings": 0.5}, fidelity={"max_steps": 9, "min_steps": 9})
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    search.ended(first, Outcome("failed", 0, {}, 2.0, 0.0, "out of memory"))
    assert isinstance(search.next(), Finished)
    job = Jobs(bed.store, bed.settings).get(job_id)
    assert job.bill.search_core_seconds == 2.0
    assert search.nothing_found() == (
        "no trial was fully trained, 1 failed; most often: out of memory"
    )


def test_a_job_whose_trials_all_fail_is_told_so_early(bed: Bed) -> None:
    bed.submit()
    search = bed.search(bed.claim())

    def fail_one() -> None:
        assignment = search.next()
        assert isinstance(assignment, Assignment)
        search.ended(assignment, Outcome("failed", 0, {}, 0.0, 0.0, "no luck"))

    for _ in range(FRUITLESS_TRIALS - 1):
        fail_one()
    with pytest.raises(TrialFailed, match="the first 10 trials all failed; most often: no luck"):
        fail_one()


FULL = Outcome("disturbed", 0, {}, 0.0, 0.0, "OSError: disk full")


def disturb(bed: Bed, search: Search) -> Assignment:
    """Wait until a segment is given out, and disturb it."""
    while (chosen := search.next()) is None:
        bed.elapsed += 1.0
    assert isinstance(chosen, Assignment)
    search.ended(chosen, FULL)
    return chosen


def test_what_disturbs_is_tried_again_after_a_pause(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = disturb(bed, search)
    assert search.next() is None
    bed.elapsed += FIRST_PAUSE
    again = search.next()
    assert isinstance(again, Assignment)
    assert again.trial == first.trial
    search.ended(again, train(again))
    list(drive(search))
    assert all(t.state is not TrialState.FAILED for t in bed.trials(job_id))


def test_a_disk_that_is_full_for_a_while_costs_no_trial(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    began = bed.elapsed
    while bed.elapsed - began < PATIENCE_SECONDS / 2:
        disturb(bed, search)
    bed.elapsed += LONGEST_PAUSE
    list(drive(search))
    assert all(t.state is not TrialState.FAILED for t in bed.trials(job_id))


def test_a_disk_that_stays_full_fails_the_job_and_few_trials(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    search.ended(first, train(first))

    def disturb_for_ever() -> None:
        while True:
            disturb(bed, search)

    with pytest.raises(NasError, match="nothing can be trained any more: OSError: disk full"):
        disturb_for_ever()
    assert PATIENCE_SECONDS <= bed.elapsed <= PATIENCE_SECONDS + 5 * LONGEST_PAUSE
    failed = [t for t in bed.trials(job_id) if t.state is TrialState.FAILED]
    assert len(failed) == GIVEN_UP_TRIALS
    assert all("disk full" in (t.error or "") for t in failed)


@pytest.mark.parametrize(("slots", "how"), [(1, "again and again"), (2, "3 times")])
def test_what_alone_is_disturbed_fails_alone(bed: Bed, slots: int, how: str) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    cursed = disturb(bed, search).trial
    while True:
        bed.elapsed += LONGEST_PAUSE
        chosen = [search.next() for _ in range(slots)]
        running = [c for c in chosen if isinstance(c, Assignment)]
        if not running:
            break
        for assignment in running:
            search.ended(assignment, FULL if assignment.trial == cursed else train(assignment))
    (failed,) = [t for t in bed.trials(job_id) if t.state is TrialState.FAILED]
    assert failed.id == cursed
    assert failed.error == f"OSError: disk full, {how}"
    assert len(bed.trials(job_id)) == 18


def test_a_result_that_cannot_be_recorded_stops_the_job(bed: Bed) -> None:
    bed.submit()
    search = bed.search(bed.claim())
    searcher = SegmentSearcher(search)
    chosen = searcher.suggest("tune-1")
    assert isinstance(chosen, dict)
    bad = Outcome("finished", 3, {"loss": math.nan}, 1.0, 0.5)
    searcher.on_trial_complete("tune-1", bad.to_result())  # Tune hears nothing of it …
    with pytest.raises(ValueError, match="loss"):
        searcher.suggest("tune-2")  # … but nothing goes on
    with pytest.raises(ValueError, match="loss"):
        searcher.check()
