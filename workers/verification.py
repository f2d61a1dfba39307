"""Verification: members of the front timed side by side and trained again from fresh seeds.

The trainings are segments like any other. Rows decide what is left to do, so it goes on wherever a
process was killed.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from nas.schemas import Front, JobRequest, Trial
from nas.store import Store, bills, estimates, verifications
from nas.store import jobs as job_rows
from nas.store import trials as trial_rows
from nas.store.records import JobRecord, TransferRecord, TrialRecord
from search_spaces import Architecture
from workers.measuring import Subject
from workers.patience import Patience
from workers.rounds import rounds_on_cluster
from workers.segments import Assignment, Bench, Outcome
from workers.tuning import Finished, Source

log = structlog.get_logger()

ROUNDS_SECONDS = 20.0
ROUNDS_SHARE = 0.1
"""Members are timed for at most so long, and for that part of what verification may cost."""
TEST_BATCHES = 64
"""At most so many batches of the test split: of a long text, a part of it says enough."""


@dataclass(frozen=True)
class Allowance:
    """What verification may cost and what it has cost, in core-seconds."""

    most: float
    spent: float

    @classmethod
    def of(cls, store: Store, job_id: str, share: float) -> Allowance:
        """A share of what the job's search has cost."""
        with store.read() as session:
            job = job_rows.record(session, job_id)
        return cls(share * job.search_core_seconds, job.verification_core_seconds)

    @property
    def left(self) -> float:
        """What may still be spent."""
        return max(0.0, self.most - self.spent)


class Verification:
    """All of it for one job.

    subjects: the models to be timed, by the ids of their trials.  train: runs a source's segments.
    """

    def __init__(
        self,
        store: Store,
        job: JobRecord,
        request: JobRequest,
        *,
        front: Callable[[], Front],
        subjects: Callable[[set[str]], list[Subject]],
        train: Callable[[Source, Bench], None],
        checkpoints: Path,
        draining: Callable[[], bool],
    ) -> None:
        self._store = store
        self._job = job
        self._request = request
        self._subjects = subjects
        self._train = train
        self._checkpoints = checkpoints
        self._draining = draining
        self._timed = self._rounds()
        self.members = [*self._timed] or self._chosen(front)

    def run(self, bench: Bench) -> None:
        """Whatever is left of it."""
        if not self._timed:
            self._time_members(bench)
        for other, where in (None, bench), *self._elsewhere(bench):
            verifier = Verifier(
                self._store,
                self._job,
                self._request,
                members=self.members,
                checkpoints=self._checkpoints,
                draining=self._draining,
                other=other,
            )
            if not self._draining() and verifier.wanted:
                self._train(verifier, where)

    def _rounds(self) -> dict[str, list[float]]:
        with self._store.read() as session:
            return estimates.of_job(session, self._job.id).rounds

    def _chosen(self, front: Callable[[], Front]) -> list[str]:
        wanted = self._request.verification
        if not wanted.seeds:
            return []
        return [trial.id for trial in choose_members(front(), wanted.members)]

    def _time_members(self, bench: Bench) -> None:
        allowed = Allowance.of(self._store, self._job.id, self._request.verification.share)
        if not allowed.left:
            return
        rounds = rounds_on_cluster(
            self._subjects(set(self.members)),
            bench,
            seconds=min(ROUNDS_SECONDS, ROUNDS_SHARE * allowed.left),
            seed=self._request.seed,
        )
        job, token = self._job.id, self._job.token
        with self._store.write() as session:
            verifications.put_rounds(session, job, token, rounds.milliseconds, alone=rounds.alone)
            bills.add_cost(session, job, token, verification_core_seconds=rounds.seconds)

    def _elsewhere(self, bench: Bench) -> Iterator[tuple[int, Bench]]:
        """The other tasks to train members on, by their place in the request."""
        for i, task in enumerate(self._request.verification.also):
            dataset = bench.dataset if task.uploaded else None
            yield i, replace(bench, task=task, dataset=dataset, data_hash=None, context=False)


@dataclass(frozen=True)
class _Training:
    assignment: Assignment
    core_seconds: float
    """What it is thought to take: as much as in the search."""


class Verifier:
    """Gives out one full training per (member, seed) that has none yet, while it may cost so much.

    other: which of the other tasks the members are trained on, each with one seed; None: the job's
    own, where they are tested on the test split as well.
    """

    def __init__(
        self,
        store: Store,
        job: JobRecord,
        request: JobRequest,
        *,
        members: Sequence[str],
        checkpoints: Path,
        draining: Callable[[], bool],
        other: int | None = None,
    ) -> None:
        self._store = store
        self._job = job
        self._request = request
        self._checkpoints = checkpoints
        self._draining = draining
        self._other = other
        allowed = Allowance.of(store, job.id, request.verification.share)
        self._left = allowed.left
        self._running: dict[str, float] = {}
        self._losses: Counter[str] = Counter()
        self._patience = Patience(time.monotonic)
        self._todo = deque(self._plan(members))

    @property
    def wanted(self) -> bool:
        """Whether there is anything to verify."""
        return any(training.core_seconds < self._left for training in self._todo)

    def next(self) -> Assignment | Finished | None:
        """The next (member, seed) that can be afforded."""
        if self._draining():
            return Finished()
        if self._patience.pausing:
            return None
        while self._todo:
            training = self._todo[0]
            if training.core_seconds < self._left - sum(self._running.values()):
                self._running[training.assignment.checkpoint] = training.core_seconds
                return self._todo.popleft().assignment
            if self._running:
                return None  # they may turn out cheaper than thought
            log.info("verification not afforded", trial=training.assignment.trial)
            self._todo.popleft()
        return None if self._running else Finished()

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        """Record what a fresh seed gave; a failure is told in the log and changes nothing."""
        thought = self._running.pop(assignment.checkpoint)
        seconds = outcome.training_seconds + outcome.evaluation_seconds
        core_seconds = seconds * self._request.resources.threads
        self._left -= core_seconds
        if outcome.kind != "finished":
            with self._store.write() as session:
                bills.add_cost(
                    session,
                    self._job.id,
                    self._job.token,
                    verification_core_seconds=core_seconds,
                    metered_kwh=outcome.metered_kwh,
                )
        if outcome.kind == "interrupted":
            return  # draining: whoever goes on plans it anew and resumes its checkpoint
        if outcome.kind == "disturbed":
            self._disturbed(_Training(assignment, thought), outcome.reason or "it gave no reason")
            return
        self._patience.relieved()
        Path(assignment.checkpoint).unlink(missing_ok=True)
        if outcome.kind == "failed":
            log.warning("verification failed", trial=assignment.trial, reason=outcome.reason)
            return
        self._record(assignment, outcome, core_seconds)

    def lost(self, assignment: Assignment) -> None:
        """Its actor died: once more, from its checkpoint."""
        thought = self._running.pop(assignment.checkpoint)
        self._again(_Training(assignment, thought), "its process died (out of memory, perhaps)")

    def _record(self, assignment: Assignment, outcome: Outcome, core_seconds: float) -> None:
        with self._store.write() as session:
            if self._other is None:
                trial_rows.add_verification(
                    session,
                    assignment.trial,
                    self._job.token,
                    assignment.seed,
                    outcome.metrics,
                    core_seconds=core_seconds,
                    test=outcome.test,
                    metered_kwh=outcome.metered_kwh,
                )
                return
            verifications.add_transfer(
                session,
                self._job.id,
                self._job.token,
                TransferRecord(assignment.trial, self._other, assignment.seed, outcome.metrics),
                core_seconds=core_seconds,
                metered_kwh=outcome.metered_kwh,
            )

    def _disturbed(self, training: _Training, why: str) -> None:
        """Try again later, as long as there is hope."""
        alone = not self._patience.troubled
        self._patience.disturbed()
        if alone:
            self._again(training, why)
        elif self._patience.exhausted:
            log.warning("verification given up", trial=training.assignment.trial, reason=why)
        else:
            self._todo.append(training)

    def _again(self, training: _Training, why: str) -> None:
        self._losses[training.assignment.checkpoint] += 1
        if self._losses[training.assignment.checkpoint] > 1:
            log.warning("verification given up", trial=training.assignment.trial, reason=why)
        else:
            self._todo.append(training)

    def _plan(self, members: Sequence[str]) -> list[_Training]:
        with self._store.read() as session:
            records = [trial_rows.get(session, trial) for trial in members]
            sources = [trial_rows.source(session, record) for record in records]
            done = {(r.id, v.seed) for r in records for v in r.verifications}
            if self._other is not None:
                found = verifications.transfers(session, self._job.id)
                done = {(t.trial_id, t.seed) for t in found if t.task == self._other}
        seeds = self._request.verification.seeds if self._other is None else 1
        return [
            _Training(self._assignment(record, seed), self._cost(source))
            for record, source in zip(records, sources, strict=True)
            for seed in range(self._request.seed + 1, self._request.seed + 1 + seeds)
            if (record.id, seed) not in done
        ]

    def _cost(self, source: TrialRecord | None) -> float:
        if source is None:
            return 0.0  # its trial was deleted: nothing is known of it any more
        seconds = source.training_seconds + source.evaluation_seconds
        return seconds * self._request.resources.threads

    def _assignment(self, record: TrialRecord, seed: int) -> Assignment:
        fidelity = self._request.fidelity
        own = self._other is None
        task = "" if own else f"-task-{self._other}"
        return Assignment(
            trial=record.id,
            rung=len(fidelity.rungs()) - 1,
            to_steps=fidelity.max_steps,
            seed=seed,
            architecture=Architecture.model_validate(record.architecture).canonical_json(),
            checkpoint=str(self._checkpoints / f"{record.id}{task}-seed-{seed}.pt"),
            test_batches=TEST_BATCHES if own else 0,
        )


def choose_members(front: Front, members: int) -> list[Trial]:
    """The knee, the best homogeneous one, and members spread evenly over the front.

    At most ``members`` of the front; the homogeneous one comes on top unless it is among them.
    """
    if not front.items or not members:
        return []
    last = len(front.items) - 1
    wanted = min(members, last + 1)
    spread = {round(i * last / max(1, wanted - 1)) for i in range(wanted)}
    knee = next((i for i, trial in enumerate(front.items) if trial.id == front.knee), None)
    if knee is not None and knee not in spread:
        inner = spread - {0, last} or spread  # the ends stay if they can
        spread.remove(min(inner, key=lambda i: abs(i - knee)))
        spread.add(knee)
    first = [front.items[knee]] if knee is not None else []
    chosen = [*first, *front.homogeneous[:1], *(front.items[i] for i in sorted(spread))]
    return list({trial.id: trial for trial in chosen}.values())
