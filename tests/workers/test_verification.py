"""Verification as a source of segments, against a real store and without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.jobs import Jobs
from nas.schemas import Front, JobRequest, Trial
from nas.settings import Settings
from nas.states import TrialState
from nas.store import Store, bills, estimates, leases, trials, verifications
from nas.store import jobs as job_rows
from nas.store.migrate import upgrade
from nas.store.records import JobRecord, TrialRecord
from search_spaces import load_space
from workers.patience import Patience
from workers.rounds import Rounds
from workers.segments import Assignment, Bench, Outcome
from workers.tuning import Finished
from workers.verification import TEST_BATCHES, Allowance, Verification, Verifier, choose_members

REQUEST: dict[str, Any] = {
    "task": {"name": "text_lm", "sequence_length": 64},
    "space": "tiny",
    "objectives": ["loss", "parameters"],
    "fidelity": {"max_steps": 27, "min_steps": 3, "reduction_factor": 3, "audit": 0},
    "seed": 10,
}
SECONDS = 8.0
"""What each training of the search has taken."""


class Bed:
    """A job whose search is over, with as many complete trials as are asked for."""

    def __init__(self, folder: Path, complete: int = 4, searched: int = 0, **changes: Any) -> None:
        self.settings = Settings(data=folder)
        upgrade(self.settings.database_url)
        self.store = Store(self.settings.database_url)
        self.request = JobRequest.model_validate({**REQUEST, **changes})
        self.jobs = Jobs(self.store, self.settings)
        self.jobs.submit(self.request)
        self.job = self.claim()
        self.members = [self.train(i) for i in range(complete)]
        with self.store.write() as session:
            bills.add_cost(
                session, self.job.id, self.job.token, search_core_seconds=float(searched)
            )

    def claim(self) -> JobRecord:
        with self.store.write() as session:
            job = leases.claim_job(session, "worker", 30)
            assert job is not None
            job_rows.begin(
                session,
                job.id,
                job.token,
                task_key="task",
                result_key="result",
                data_hash="data",
                trivial_loss=5.0,
                scales={},
            )
            return job_rows.record(session, job.id)

    def train(self, index: int) -> str:
        """A complete trial: each one cheaper and worse than the one before."""
        architecture = _distinct(index)
        with self.store.write() as session:
            trial = trials.insert(
                session,
                self.job.id,
                self.job.token,
                architecture=architecture,
                origin="random",
                seed=10,
                costs={"parameters": 1000.0 - index},
            )
            trials.start(session, trial.id, self.job.token, 2)
            trials.finish_rung(
                session,
                trial.id,
                self.job.token,
                rung=2,
                steps=27,
                metrics={"loss": 2.0 + index, "accuracy": 0.1, "expected_depth": 2.0},
                training_seconds=SECONDS - 2,
                evaluation_seconds=2.0,
                state=TrialState.COMPLETED,
            )
        return trial.id

    def verifier(self, members: list[str] | None = None, other: int | None = None) -> Verifier:
        return Verifier(
            self.store,
            self.job,
            self.request,
            members=self.members if members is None else members,
            checkpoints=self.settings.checkpoints,
            draining=lambda: False,
            other=other,
        )

    def trial(self, trial_id: str) -> TrialRecord:
        with self.store.read() as session:
            return trials.get(session, trial_id)

    def front(self) -> Front:
        return self.jobs.front(self.job.id)

    def verification(self, runs: list[tuple[Any, Bench]], draining: bool = False) -> Verification:
        return Verification(
            self.store,
            self.job,
            self.request,
            front=self.front,
            subjects=lambda ids: [],
            train=lambda source, where: runs.append((list(drive(source)), where)),
            checkpoints=self.settings.checkpoints,
            draining=lambda: draining,
        )


def _distinct(index: int) -> Any:
    space = load_space("tiny")
    found: dict[str, Any] = {}
    seed = 0
    while len(found) <= index:
        found.setdefault(space.fingerprint(space.sample(seed)), space.sample(seed))
        seed += 1
    return list(found.values())[index]


def outcome(assignment: Assignment, seconds: float = SECONDS) -> Outcome:
    loss = 2.0 + 0.01 * assignment.seed
    test = {"loss": loss + 0.5, "accuracy": 0.2} if assignment.test_batches else {}
    metrics = {"loss": loss, "accuracy": 0.3}
    return Outcome("finished", 27, metrics, seconds - 2, 2.0, test=test)


def drive(
    verifier: Verifier, seconds: float = SECONDS, slots: int = 2, stop_after: int = 1000
) -> Iterator[Assignment]:
    """Run what it gives until it is finished; yields each that ended."""
    running: list[Assignment] = []
    for _ in range(stop_after):
        while len(running) < slots and isinstance(chosen := verifier.next(), Assignment):
            running.append(chosen)
        if not running:
            assert isinstance(verifier.next(), Finished)
            return
        assignment = running.pop(0)
        verifier.ended(assignment, outcome(assignment, seconds))
        yield assignment


def test_each_member_is_trained_with_each_seed_and_tested_once(tmp_path: Path) -> None:
    bed = Bed(tmp_path, verification={"seeds": 3, "share": 1}, searched=1000)
    done = list(drive(bed.verifier()))
    assert sorted((a.trial, a.seed) for a in done) == sorted(
        (trial, seed) for trial in bed.members for seed in (11, 12, 13)
    )
    assert {(a.to_steps, a.rung, a.test_batches) for a in done} == {(27, 2, TEST_BATCHES)}
    assert len({a.checkpoint for a in done}) == len(done)
    member = bed.trial(bed.members[0])
    assert [v.seed for v in member.verifications] == [11, 12, 13]
    assert member.verified["loss"].mean == pytest.approx(2.12)
    assert member.tested["loss"].mean == pytest.approx(2.62)
    assert member.tested["loss"].n == 3
    assert member.metrics["loss"] == 2.0
    assert bed.verifier().wanted is False


def test_a_second_life_trains_only_what_is_left(tmp_path: Path) -> None:
    bed = Bed(tmp_path, verification={"share": 1}, searched=1000)
    first = list(drive(bed.verifier(), stop_after=3))
    second = list(drive(bed.verifier()))
    pairs = [(a.trial, a.seed) for a in (*first, *second)]
    assert len(pairs) == len(set(pairs)) == 8
    with bed.store.read() as session:
        job = job_rows.record(session, bed.job.id)
    assert job.verification_core_seconds == 8 * SECONDS


@pytest.mark.parametrize(("share", "trained"), [(0.0, 0), (0.25, 2), (0.5, 5), (1.0, 8)])
def test_it_costs_at_most_its_share_of_the_search(
    tmp_path: Path, share: float, trained: int
) -> None:
    bed = Bed(tmp_path, verification={"share": share}, searched=53)  # and 4 × 8 of its trials
    assert bed.verifier().wanted is (trained > 0)
    assert len(list(drive(bed.verifier()))) == trained
    allowed = Allowance.of(bed.store, bed.job.id, share)
    assert allowed.most == pytest.approx(85 * share)
    assert allowed.spent == trained * SECONDS <= allowed.most
    assert list(drive(bed.verifier())) == []  # nor does another life spend more


def test_what_turns_out_dearer_than_thought_ends_it_sooner(tmp_path: Path) -> None:
    bed = Bed(tmp_path, verification={"share": 1}, searched=48)  # in all 80: ten trainings
    assert len(list(drive(bed.verifier(), seconds=2 * SECONDS, slots=1))) == 5
    cheap = Bed(tmp_path / "cheap", verification={"share": 0.5}, searched=0)  # two as thought
    assert len(list(drive(cheap.verifier(), seconds=3.0))) == 3  # 16 - 3 - 3 - 3 < 8


def test_the_knee_comes_first_with_all_of_its_seeds(tmp_path: Path) -> None:
    bed = Bed(tmp_path, verification={"share": 0.5}, searched=0)
    done = list(drive(bed.verifier(), slots=1))
    assert [(a.trial, a.seed) for a in done] == [(bed.members[0], 11)]


def test_other_tasks_are_trained_once_and_never_tested(tmp_path: Path) -> None:
    also = [{"name": "listops"}, {"name": "text_lm", "sequence_length": 32}]
    bed = Bed(tmp_path, verification={"share": 1, "also": also}, searched=1000)
    list(drive(bed.verifier()))
    for other in (0, 1):
        done = list(drive(bed.verifier(other=other)))
        assert [(a.trial, a.seed) for a in done] == [(trial, 11) for trial in bed.members]
        assert {a.test_batches for a in done} == {0}
        assert not bed.verifier(other=other).wanted
    with bed.store.read() as session:
        found = verifications.transfers(session, bed.job.id)
    assert len(found) == 8
    assert {(t.task, t.seed) for t in found} == {(0, 11), (1, 11)}
    assert len(bed.trial(bed.members[0]).verifications) == 2


def test_a_failure_is_no_result_but_costs(tmp_path: Path) -> None:
    bed = Bed(tmp_path, complete=1, verification={"share": 1, "seeds": 1}, searched=100)
    verifier = bed.verifier()
    assignment = verifier.next()
    assert isinstance(assignment, Assignment)
    verifier.ended(assignment, Outcome("failed", 0, {}, 3.0, 0.0, "diverged"))
    assert isinstance(verifier.next(), Finished)
    assert bed.trial(bed.members[0]).verifications == ()
    assert Allowance.of(bed.store, bed.job.id, 1).spent == 3.0


def test_what_is_lost_is_trained_once_more(tmp_path: Path) -> None:
    bed = Bed(tmp_path, complete=1, verification={"share": 1, "seeds": 1}, searched=100)
    verifier = bed.verifier()
    for _ in range(2):
        assignment = verifier.next()
        assert isinstance(assignment, Assignment)
        verifier.lost(assignment)
    assert isinstance(verifier.next(), Finished)


def test_what_is_disturbed_waits_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = Bed(tmp_path, complete=1, verification={"share": 1, "seeds": 1}, searched=100)
    verifier, now = bed.verifier(), [0.0]
    monkeypatch.setattr(verifier, "_patience", Patience(lambda: now[0]))
    assignment = verifier.next()
    assert isinstance(assignment, Assignment)
    verifier.ended(assignment, Outcome("disturbed", 0, {}, 0.0, 0.0, "no space left"))
    assert verifier.next() is None
    now[0] += 60
    again = verifier.next()
    assert again == assignment
    verifier.ended(again, outcome(again))
    assert len(bed.trial(bed.members[0]).verifications) == 1


def test_a_whole_verification_visits_each_task_with_its_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    also = [{"name": "listops"}]
    bed = Bed(tmp_path, verification={"share": 1, "also": also, "members": 2}, searched=1000)
    timed: list[float] = []

    def rounds(subjects: Any, bench: Bench, *, seconds: float, seed: int) -> Any:
        timed.append(seconds)
        return Rounds({trial: [10.0, 11.0, 12.0] for trial in verification.members}, 3.0, True)

    monkeypatch.setattr("workers.verification.rounds_on_cluster", rounds)
    runs: list[tuple[Any, Bench]] = []
    verification = bed.verification(runs)
    members = verification.members
    assert set(members) >= {bed.front().knee}
    verification.run(bench(bed))
    (own, at_home), (other, elsewhere) = runs
    assert {a.trial for a in own} == {a.trial for a in other} == set(members)
    assert (at_home.task.name, at_home.dataset) == ("text_lm", Path("own.txt"))
    assert (elsewhere.task.name, elsewhere.dataset) == ("listops", None)
    assert (elsewhere.data_hash, elsewhere.context) == (None, False)
    assert len(timed) == 1
    # another life times nobody again, has the same members, and nothing left to do
    bed.train(9)
    later = bed.verification(runs)
    assert set(later.members) == set(members)
    later.run(bench(bed))
    assert (len(runs), len(timed)) == (2, 1)
    with bed.store.read() as session:
        found = estimates.of_job(session, bed.job.id)
    assert set(found.rounds) == set(members)


def test_nothing_is_verified_where_it_is_not_asked_for(tmp_path: Path) -> None:
    bed = Bed(tmp_path, verification={"seeds": 0}, searched=100)
    assert bed.verification([]).members == []
    none = Bed(tmp_path / "none", verification={"members": 0}, searched=100)
    assert none.verification([]).members == []


def bench(bed: Bed) -> Bench:
    return Bench(
        task=bed.request.task,
        dataset=Path("own.txt"),
        cache=Path("cache"),
        recipe=bed.request.training,
        max_steps=27,
        threads=1,
        device="cpu",
        stop_file=Path("stop"),
        context=True,
        data_hash="hash",
    )


def front_of(size: int, knee: int, homogeneous: int | None = None) -> Front:
    """A front by number; the homogeneous one has the number that is given."""
    made = {i: trial(i) for i in {*range(size), *((homogeneous,) if homogeneous else ())}}
    return Front(
        objectives=["loss"],
        items=[made[i] for i in range(size)],
        hypervolume=0.5,
        reference_point={},
        knee=str(knee) if size else None,
        homogeneous=[made[homogeneous]] if homogeneous is not None else [],
    )


def trial(number: int) -> Trial:
    return Trial.model_validate(
        {
            "id": str(number),
            "job": "job",
            "number": number,
            "architecture": {},
            "fingerprint": str(number),
            "origin": "random",
            "metrics": {},
            "rung": 2,
            "fidelity": 1.0,
            "state": "completed",
            "error": None,
            "verified": None,
            "seed": 0,
            "created_at": "2025-01-01T00:00:00Z",
            "finished_at": None,
        }
    )


@pytest.mark.parametrize(
    ("front", "members", "expected"),
    [
        (front_of(0, 0), 5, []),
        (front_of(3, 1), 0, []),
        (front_of(1, 0), 5, [0]),
        (front_of(3, 1), 5, [1, 0, 2]),
        (front_of(9, 4), 5, [4, 0, 2, 6, 8]),
        (front_of(9, 5), 5, [5, 0, 2, 6, 8]),
        (front_of(9, 1), 5, [1, 0, 4, 6, 8]),
        (front_of(9, 4, homogeneous=20), 3, [4, 20, 0, 8]),
        (front_of(9, 4, homogeneous=0), 3, [4, 0, 8]),
        (front_of(9, 7), 1, [7]),
    ],
)
def test_members_are_spread_over_the_front_with_the_knee_and_the_best_homogeneous_one(
    front: Front, members: int, expected: list[int]
) -> None:
    assert [t.number for t in choose_members(front, members)] == expected
