"""The search of one job as a source of segments: rows decide, and every decision becomes a row.

Built anew from the rows whenever a process takes the job up, so it may be killed at any time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from nas.billing import Rates, Work
from nas.errors import NasError, TrialFailed
from nas.schemas import JobRequest
from nas.search.errors import SpaceExhausted
from nas.search.rungs import Rungs
from nas.search.strategy import Candidate, Strategy
from nas.states import EndedBy, TrialState
from nas.store import Store, bills
from nas.store import jobs as job_rows
from nas.store import trials as trial_rows
from nas.store.records import CurveRecord, JobRecord, TrialRecord
from search_spaces import Architecture
from workers.known import KnownResults
from workers.patience import Patience
from workers.segments import Assignment, Outcome
from workers.spending import Spending
from workers.tuning import Finished
from workers.weights import Weights

log = structlog.get_logger()

LOST_SEGMENTS = 3
"""So often may a segment's process die, or it alone be disturbed, before its trial has failed."""
GIVEN_UP_TRIALS = 3
"""When so many were disturbed beyond patience in a row, the job cannot go on."""
FRUITLESS_TRIALS = 10
"""When so many have failed and none has finished a rung, the job is at fault and not the trials."""


@dataclass(frozen=True)
class Plan:
    """What a search works with, resolved once per process."""

    job: JobRecord
    request: JobRequest
    strategy: Strategy
    rungs: Rungs[int]
    costs: Callable[[Architecture], dict[str, float]]
    checkpoints: Path
    elapsed: Callable[[], float]
    draining: Callable[[], bool]
    rates: Rates


class Search:
    """Asks, trains, promotes and records until the budget ends; then says ``Finished``."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self._steps = plan.request.fidelity.rungs()
        self._held: dict[str, tuple[Candidate, TrialRecord]] = {}
        self._ids: dict[int, str] = {}
        self._pending: deque[tuple[str, int]] = deque()
        self._running: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._patience = Patience(plan.elapsed)
        self._given_up = 0
        self._fruitful = False
        self.failures: Counter[str] = Counter()
        self._spent = Spending(
            plan.request.budget, self._steps[-1], plan.rates, plan.elapsed, plan.job.searched
        )
        self._ended_by = EndedBy(plan.job.ended_by) if plan.job.ended_by else None
        self._known = KnownResults(store, plan.job, plan.request, plan.costs)
        self._weights = Weights(plan.checkpoints)
        self._restore()
        self._start_from_what_is_known()

    # --- what runs next ---------------------------------------------------------------------

    def next(self) -> Assignment | Finished | None:
        """The next segment: interrupted, promoted, new, or promoted late."""
        if self._plan.draining():
            return Finished()
        if self._patience.pausing:
            return None
        chosen = self._choose()
        if chosen is None:
            return None if self._running else Finished()
        trial, rung = chosen
        self._plan.rungs.start(self._held[trial][1].number, rung)
        self._running.add(trial)
        return self._assignment(trial, rung)

    def _choose(self) -> tuple[str, int] | None:
        """A trial and a rung, its row started."""
        if self._pending:
            return self._start(*self._pending.popleft())
        if ended := self._spent.ended:
            self._end_asking(ended)
            return None
        if promotion := self._plan.rungs.next_promotion():
            return self._start(self._ids[promotion[0]], promotion[1])
        if started := self._ask():
            return started
        # asking has ended: the best of a last, partial rung go on
        late = self._plan.rungs.drain()
        return self._start(self._ids[late[0]], late[1]) if late else None

    def _start(self, trial: str, rung: int) -> tuple[str, int]:
        with self._store.write() as session:
            trial_rows.start(session, trial, self._plan.job.token, rung)
        return trial, rung

    def _ask(self) -> tuple[str, int] | None:
        """A new trial and the rung it begins with, its row started."""
        while not self._asking_is_over():
            try:
                candidate = self._plan.strategy.ask()
            except SpaceExhausted:
                self._end_asking(EndedBy.SPACE)
                return None
            if known := self._known.take_over(candidate.architecture, candidate.origin):
                self._reuse(candidate, known)
                continue
            rung = self._plan.rungs.first(candidate.fingerprint)
            architecture, inherit = candidate.architecture, self._plan.request.inherit
            parent = self._weights.closest(architecture) if inherit else None
            with self._store.write() as session:
                record = trial_rows.insert_started(
                    session,
                    self._plan.job.id,
                    self._plan.job.token,
                    architecture=architecture,
                    origin=candidate.origin,
                    seed=self._plan.request.seed,
                    costs=self._plan.costs(architecture),
                    rung=rung,
                    parent=parent,
                )
            self._hold(candidate, record)
            self._spent.asked += 1
            return record.id, rung
        return None

    def _asking_is_over(self) -> bool:
        """Whether no new trial may begin; once it is so it stays so, and the row says why."""
        tolerance = self._plan.request.budget.tolerance
        if met := self._ended_by or self._spent.asking_ended:
            self._end_asking(met)
        elif tolerance is not None and self._plan.strategy.is_settled(tolerance):
            self._end_asking(EndedBy.TOLERANCE)
        return self._ended_by is not None

    def _end_asking(self, why: EndedBy) -> None:
        if self._ended_by is None:
            with self._store.write() as session:
                job_rows.end_asking(session, self._plan.job.id, self._plan.job.token, why.value)
            self._ended_by = why

    def _start_from_what_is_known(self) -> None:
        if self._plan.strategy.learns and not self._spent.asked:
            held = {candidate.fingerprint for candidate, _ in self._held.values()}
            for architecture, known in self._known.beyond(held):
                self._reuse(self._plan.strategy.adopt(architecture, known.origin), known)

    def _reuse(self, candidate: Candidate, record: TrialRecord) -> None:
        self._hold(candidate, record)
        self._plan.strategy.tell(candidate, record.metrics)

    def _hold(self, candidate: Candidate, record: TrialRecord) -> None:
        self._held[record.id] = candidate, record
        self._ids[record.number] = record.id

    def _assignment(self, trial: str, rung: int) -> Assignment:
        candidate, record = self._held[trial]
        parent = self._held[record.parent][0].architecture if record.parent else None
        return Assignment(
            trial=trial,
            rung=rung,
            to_steps=self._steps[rung],
            seed=record.seed,
            architecture=candidate.architecture.canonical_json(),
            checkpoint=str(self._weights.of(trial)),
            parent=self._weights.inheritance(record.parent, parent),
        )

    # --- what became of it ------------------------------------------------------------------

    def ended(self, assignment: Assignment, outcome: Outcome) -> None:
        """Record a segment's end; a failed one ends its trial, an interrupted one waits."""
        trial = assignment.trial
        self._running.discard(trial)
        self._spent.work += Work.done(self._seconds_of_cores(outcome), outcome.metered_kwh)
        if outcome.kind != "finished":
            self._charge(assignment, outcome)
        if outcome.kind == "failed":
            self._fail(trial, outcome.reason or "it gave no reason")
        elif outcome.kind == "disturbed":
            self._disturbed(assignment, outcome.reason or "it gave no reason")
        elif outcome.kind == "interrupted":
            with self._store.write() as session:
                trial_rows.interrupt(session, trial, self._plan.job.token)
            self._pending.append((trial, assignment.rung))
        else:
            self._finish(assignment, outcome)

    def lost(self, assignment: Assignment) -> None:
        """A segment's actor died: train it again from its checkpoint, but not for ever."""
        self._running.discard(assignment.trial)
        self._again(assignment, "its process died (out of memory, perhaps)")

    def _disturbed(self, assignment: Assignment, why: str) -> None:
        """Try again later; only what is disturbed while others are not is counted against it."""
        alone = not self._patience.troubled
        self._patience.disturbed()
        if alone:
            self._again(assignment, why)
        elif not self._patience.exhausted:
            self._put_back(assignment, why)
        else:
            self._fail(assignment.trial, f"{why}, again and again")
            self._given_up += 1
            if self._given_up >= GIVEN_UP_TRIALS:
                raise NasError(f"nothing can be trained any more: {why}")

    def _again(self, assignment: Assignment, why: str) -> None:
        trial = assignment.trial
        self._losses[trial] += 1
        if self._losses[trial] >= LOST_SEGMENTS:
            self._fail(trial, f"{why}, {LOST_SEGMENTS} times")
            return
        self._put_back(assignment, why)

    def _put_back(self, assignment: Assignment, why: str) -> None:
        trial = assignment.trial
        log.warning("segment lost", trial=trial, rung=assignment.rung, reason=why)
        with self._store.write() as session:
            trial_rows.interrupt(session, trial, self._plan.job.token)
        self._pending.append((trial, assignment.rung))

    def _charge(self, assignment: Assignment, outcome: Outcome) -> None:
        """Bill what came to nothing; a failed segment counts as trained, or it would be free."""
        with self._store.write() as session:
            bills.add_cost(
                session,
                self._plan.job.id,
                self._plan.job.token,
                search_core_seconds=self._seconds_of_cores(outcome),
                metered_kwh=outcome.metered_kwh,
            )
        if outcome.kind == "failed":
            self._spent.steps += self._steps_of(assignment)

    def _steps_of(self, assignment: Assignment) -> int:
        """From the last rung that the trial has finished, if any."""
        return assignment.to_steps - self._held[assignment.trial][1].steps

    def _seconds_of_cores(self, outcome: Outcome) -> float:
        seconds = outcome.training_seconds + outcome.evaluation_seconds
        return seconds * self._plan.request.resources.threads

    def _finish(self, assignment: Assignment, outcome: Outcome) -> None:
        trial, rung = assignment.trial, assignment.rung
        top = rung == len(self._steps) - 1
        self._spent.steps += self._steps_of(assignment)
        self._fruitful = True
        self._patience.relieved()
        self._given_up = 0
        with self._store.write() as session:
            record = trial_rows.finish_rung(
                session,
                trial,
                self._plan.job.token,
                rung=rung,
                steps=outcome.steps,
                metrics=outcome.metrics,
                training_seconds=outcome.training_seconds,
                evaluation_seconds=outcome.evaluation_seconds,
                core_seconds=self._seconds_of_cores(outcome),
                metered_kwh=outcome.metered_kwh,
                state=TrialState.COMPLETED if top else TrialState.PAUSED,
            )
        candidate, _ = self._held[trial]
        self._hold(candidate, record)
        self._plan.strategy.tell(candidate, record.metrics, fidelity=record.fidelity)
        self._plan.rungs.record(record.number, rung, record.metrics)
        self._weights.trained(trial, candidate.architecture)
        self._stop_hopeless()

    def _fail(self, trial: str, reason: str) -> None:
        with self._store.write() as session:
            trial_rows.fail(session, trial, self._plan.job.token, reason)
        candidate, record = self._held[trial]
        self._plan.strategy.fail(candidate, reason)
        self._plan.rungs.fail(record.number)
        self._weights.drop(trial, candidate.architecture)
        log.warning("trial failed", trial=trial, reason=reason)
        self.failures[reason] += 1
        if not self._fruitful and self.failures.total() >= FRUITLESS_TRIALS:
            raise TrialFailed(
                f"the first {self.failures.total()} trials all failed; {self._most()}"
            )

    def nothing_found(self) -> str | None:
        """Why no trial was fully trained, or None when one was."""
        with self._store.read() as session:
            records = trial_rows.all(session, self._plan.job.id, with_curve=False)
        if any(r.state in (TrialState.COMPLETED, TrialState.REUSED) for r in records):
            return None
        if self.failures:
            return f"no trial was fully trained, {self.failures.total()} failed; {self._most()}"
        return "the budget ended before any trial was fully trained (fidelity=any shows the rest)"

    def _most(self) -> str:
        return f"most often: {self.failures.most_common(1)[0][0]}"

    def _stop_hopeless(self) -> None:
        """Once asking has ended, let go of those that cannot be promoted any more."""
        over = self._ended_by or self._spent.asking_ended
        if hopeless := sorted(self._plan.rungs.hopeless()) if over else []:
            self._stop([self._ids[number] for number in hopeless])
            for number in hopeless:
                self._plan.rungs.stop(number)

    def close(self) -> None:
        """After the last segment: what is still paused or waiting will not go on."""
        with self._store.read() as session:
            left = [
                t.id
                for t in trial_rows.all(session, self._plan.job.id, with_curve=False)
                if t.state in (TrialState.PAUSED, TrialState.WAITING)
            ]
        if left:
            self._stop(left)

    def _stop(self, trials: list[str]) -> None:
        with self._store.write() as session:
            trial_rows.stop(session, trials, self._plan.job.token)
        for trial in trials:
            self._weights.trim(trial)

    # --- after a restart --------------------------------------------------------------------

    def _restore(self) -> None:
        with self._store.write() as session:
            for record in trial_rows.all(session, self._plan.job.id, with_curve=False):
                if record.state is TrialState.RUNNING:
                    trial_rows.interrupt(session, record.id, self._plan.job.token)
        with self._store.read() as session:
            records = trial_rows.all(session, self._plan.job.id, with_curve=True)
        for record in records:
            architecture = Architecture.model_validate(record.architecture)
            candidate = self._plan.strategy.adopt(architecture, record.origin)
            self._hold(candidate, record)
            if record.state is not TrialState.REUSED:
                self._spent.asked += 1
                self._spent.steps += record.steps
            if record.state is TrialState.WAITING:
                rung = self._plan.rungs.first(candidate.fingerprint)
                self._plan.rungs.start(record.number, rung)
                self._pending.append((record.id, rung))
        finished = sorted(
            ((point.finished_at, record, point) for record in records for point in record.curve),
            key=lambda item: (item[0], item[1].number, item[2].rung),
        )
        for _, record, point in finished:
            self._tell(record, point)
        for record in records:
            candidate, _ = self._held[record.id]
            self._fruitful = self._fruitful or bool(record.curve)
            if record.state is TrialState.REUSED:
                self._plan.strategy.tell(candidate, record.metrics)
            elif record.state is TrialState.FAILED:
                self.failures[record.error or ""] += 1
                self._plan.strategy.fail(candidate, record.error or "")
                self._plan.rungs.fail(record.number)
                self._weights.drop(record.id, candidate.architecture)
            elif record.state is TrialState.STOPPED:
                self._plan.rungs.stop(record.number)
            elif record.state is TrialState.PAUSED and record.active_rung is not None:
                # it was promoted, and interrupted on its way
                self._plan.rungs.start(record.number, record.active_rung)
                self._pending.append((record.id, record.active_rung))

    def _tell(self, record: TrialRecord, point: CurveRecord) -> None:
        metrics = {**record.metrics, **point.metrics}
        candidate, _ = self._held[record.id]
        self._plan.strategy.tell(candidate, metrics, fidelity=point.steps / self._steps[-1])
        self._plan.rungs.record(record.number, point.rung, metrics)
        self._weights.trained(record.id, candidate.architecture)
