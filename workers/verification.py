"""Verification: members of the front trained again from fresh seeds, as segments like any other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from nas.schemas import Front, JobRequest, Trial
from nas.states import TrialState
from nas.store import Store
from nas.store import jobs as job_rows
from nas.store import trials as trial_rows
from nas.store.records import JobRecord
from search_spaces import Architecture
from workers.patience import Patience
from workers.segments import Assignment, Outcome
from workers.tuning import Finished

log = structlog.get_logger()

SHARE = 0.5
"""Verification may cost at most this share of the search's training."""


class Verifier:
    """Gives out one full training per (member, seed) that has none yet."""

    def __init__(
        self,
        store: Store,
        job: JobRecord,
        request: JobRequest,
        *,
        front: Callable[[], Front],
        checkpoints: Path,
        draining: Callable[[], bool],
    ) -> None:
        self._store = store
        self._job = job
        self._request = request
        self._front = front
        self._checkpoints = checkpoints
        self._draining = draining
        self._running = 0
        self._losses: Counter[str] = Counter()
        self._patience = Patience(time.monotonic)
        self._todo = self._plan()

    @property
    def wanted(self) -> bool:
        """Whether there is anything to verify."""
        return bool(self._todo)

    def next(self) -> Assignment | Finished | None:
        """The next (member, seed)."""
        if self._draining():
            return Finished()
        if self._patience.pausing:
            return None
        if not self._todo:
            return None if self._running else Finished()
        self._running += 1
        return self._todo.pop(0)

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        """Record what a fresh seed gave; a failure is told in the log and changes nothing."""
        self._running -= 1
        seconds = outcome.training_seconds + outcome.evaluation_seconds
        core_seconds = seconds * self._request.resources.threads
        if outcome.kind != "finished":
            with self._store.write() as session:
                job_rows.add_cost(
                    session,
                    self._job.id,
                    self._job.token,
                    verification_core_seconds=core_seconds,
                )
        if outcome.kind == "interrupted":
            return  # draining: whoever goes on plans it anew and resumes its checkpoint
        if outcome.kind == "disturbed":
            self._disturbed(assignment, outcome.reason or "it gave no reason")
            return
        self._patience.relieved()
        Path(assignment.checkpoint).unlink(missing_ok=True)
        if outcome.kind == "failed":
            log.warning("verification failed", trial=assignment.trial, reason=outcome.reason)
            return
        with self._store.write() as session:
            trial_rows.add_verification(
                session,
                assignment.trial,
                self._job.token,
                assignment.seed,
                outcome.metrics,
                core_seconds=core_seconds,
            )

    def lost(self, assignment: Assignment) -> None:
        """Its actor died: once more, from its checkpoint."""
        self._running -= 1
        self._again(assignment, "its process died (out of memory, perhaps)")

    def _disturbed(self, assignment: Assignment, why: str) -> None:
        """Try again later, as long as there is hope."""
        alone = not self._patience.troubled
        self._patience.disturbed()
        if alone:
            self._again(assignment, why)
        elif self._patience.exhausted:
            log.warning("verification given up", trial=assignment.trial, reason=why)
        else:
            self._todo.append(assignment)

    def _again(self, assignment: Assignment, why: str) -> None:
        self._losses[assignment.checkpoint] += 1
        if self._losses[assignment.checkpoint] > 1:
            log.warning("verification given up", trial=assignment.trial, reason=why)
        else:
            self._todo.append(assignment)

    def _plan(self) -> list[Assignment]:
        wanted = self._request.verification
        if not wanted.seeds or not wanted.members:
            return []
        with self._store.read() as session:
            records = trial_rows.all(session, self._job.id, with_curve=False)
            done = {(r.id, v.seed) for r in records for v in r.verifications}
        full = self._request.fidelity.max_steps
        trained = sum(r.steps for r in records if r.state is not TrialState.REUSED)
        affordable = int(SHARE * trained / full) - len(done)
        seeds = [self._request.seed + 1 + i for i in range(wanted.seeds)]
        pairs = [
            (trial, seed)
            for trial in choose_members(self._front(), wanted.members)
            for seed in seeds
            if (trial.id, seed) not in done
        ]
        top = len(self._request.fidelity.rungs()) - 1
        return [
            Assignment(
                trial=trial.id,
                rung=top,
                to_steps=full,
                seed=seed,
                architecture=Architecture.model_validate(trial.architecture).canonical_json(),
                checkpoint=str(self._checkpoints / f"{trial.id}-seed-{seed}.pt"),
            )
            for trial, seed in pairs[: max(0, affordable)]
        ]


def choose_members(front: Front, members: int) -> list[Trial]:
    """The knee, then members spread evenly over the front, the best homogeneous one among them."""
    if not front.items or not members:
        return []
    by_id = {trial.id: trial for trial in front.items}
    last = len(front.items) - 1
    spread = [front.items[round(i * last / max(1, members - 1))] for i in range(members)]
    knee = [by_id[front.knee]] if front.knee in by_id else []
    chosen = {trial.id: trial for trial in [*knee, *front.homogeneous[:1], *spread]}
    return list(chosen.values())[:members]
