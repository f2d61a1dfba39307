"""One life of one job: build, rebuild from rows, search, verify, measure the front, finish.

Every write carries the token of the lease, so that a process that was given up cannot write.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from nas.costs import LatencyTable, known_costs, latency_key
from nas.errors import Conflict, DataUnavailable
from nas.jobs import Jobs
from nas.measure.latency import device_name
from nas.schemas import Front, JobRequest
from nas.search import create_strategy
from nas.search.rungs import Rungs
from nas.settings import Settings
from nas.states import JobState, TrialState
from nas.store import Store
from nas.store import datasets as dataset_rows
from nas.store import jobs as job_rows
from nas.store import latency as latency_rows
from nas.store import trials as trial_rows
from nas.store.records import TrialRecord
from nas.tasks import build_task
from nas.tasks.base import Task
from nas.training import TRAINING_REVISION
from search_spaces import Architecture, SearchSpace, SpaceDefinition
from search_spaces.values import digest
from workers.capacity import check_capacity
from workers.measuring import Subject, models_on_cluster, table_on_cluster
from workers.orders import Exit, Order
from workers.screening import Screening, draw_pool, screen
from workers.search import Plan, Search
from workers.segments import Bench
from workers.tuning import Source, run_segments
from workers.verification import Verifier

log = structlog.get_logger()

JOULES_PER_KWH = 3.6e6


class JobRun:
    """One life of one job."""

    def __init__(self, settings: Settings, store: Store, order: Order) -> None:
        self.settings = settings
        self.store = store
        self.token = order.token
        self.searching_since = time.monotonic()
        self.stopping = False
        with store.read() as session:
            self.job = job_rows.record(session, order.job)
        self.request = JobRequest.model_validate(self.job.request)
        self.space = SearchSpace(SpaceDefinition.model_validate(self.job.space_definition))
        self.folder = settings.checkpoints / self.job.id
        # one a lease: what stops an old process must not stop the next
        self.stop_file = self.folder / f"stop-{order.token}"

    def stop(self) -> None:
        """Wind down: actors checkpoint and return, nothing new starts."""
        self.stopping = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.stop_file.touch()
        except OSError as error:  # then they are ended instead, and go on from their checkpoints
            log.warning("actors not told to stop", job=self.job.id, reason=str(error))

    def run(self) -> Exit:
        """Do whatever is left of the job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        check_capacity(self.request.resources)
        self._phase("preparing")
        bench = self._bench()
        task = build_task(bench.task, dataset=bench.dataset, cache=bench.cache)
        bench = replace(bench, data_hash=task.data_hash)
        pool = draw_pool(self.space, self.request.seed)
        costs = self._costs(task, self._latency_table(task, pool, bench))
        self._begin(task, screen(pool, costs, self.request, task.trivial_loss))
        search = Search(self.store, self._plan(task, costs))
        self._train(search, bench, "searching")
        if not self.stopping:
            search.close()
            self._phase("measuring")
            self._measure_front(bench)
        verifier = self._verifier()
        if not self.stopping and verifier.wanted:
            self._train(verifier, bench, "verifying")
        return Exit.DRAINED if self.stopping else self._finish(search)

    def _train(self, source: Source, bench: Bench, phase: str) -> None:
        self._phase(phase)
        self.searching_since = time.monotonic()
        run_segments(source, bench, self.request.resources, self.folder / "tune")

    def _verifier(self) -> Verifier:
        return Verifier(
            self.store,
            self.job,
            self.request,
            front=self._front,
            checkpoints=self.folder.resolve(),
            draining=lambda: self.stopping,
        )

    def _finish(self, search: Search) -> Exit:
        """The last word: what was found, or why nothing was."""
        nothing = search.nothing_found()
        state = JobState.FAILED if nothing and search.failures else JobState.SUCCEEDED
        return self._end(state, nothing)

    def _bench(self) -> Bench:
        return Bench(
            task=self.request.task,
            dataset=self._dataset(),
            cache=self.settings.cache.resolve(),
            recipe=self.request.training,
            max_steps=self.request.fidelity.max_steps,
            threads=self.request.resources.threads,
            device="cuda" if self.request.resources.gpus else "cpu",
            stop_file=self.stop_file.resolve(),
        )

    def _dataset(self) -> Path | None:
        if self.job.dataset is None:
            return None
        with self.store.read() as session:
            known = dataset_rows.get(session, self.job.dataset)
        path = (self.settings.datasets / known.sha256).resolve()
        try:
            with path.open("rb") as file:
                sound = hashlib.file_digest(file, "sha256").hexdigest() == known.sha256
        except FileNotFoundError as error:
            raise DataUnavailable(f"the file of data set {known.name} is gone: {path}") from error
        except OSError as error:
            raise DataUnavailable(f"data set {known.name} cannot be read: {error}") from error
        if not sound:
            raise DataUnavailable(
                f"the file of data set {known.name} is damaged, it is not what was uploaded: {path}"
            )
        return path

    def _latency_table(self, task: Task, pool: list[Architecture], bench: Bench) -> LatencyTable:
        """The device's table for this shape of work; blocks that it lacks are measured now."""
        device = latency_key(device_name(), task.shape, self._batch)
        with self.store.read() as session:
            stored = latency_rows.get(session, device)
        known = LatencyTable.model_validate(stored) if stored else None
        new = [arch for arch in pool if known is None or known.missing(arch)]
        if known is not None and not new:
            return known
        measured = table_on_cluster(new, bench, self.request.seed)
        table = measured if known is None else known.merged(measured)
        if measured.alone:  # what was measured beside other work serves this job alone
            with self.store.write() as session:
                latency_rows.put(session, device, table.model_dump(mode="json"))
        return table

    @property
    def _batch(self) -> int:
        return self.request.training.batch_size

    def _costs(self, task: Task, table: LatencyTable) -> Callable[[Architecture], dict[str, float]]:
        return lambda arch: known_costs(arch, task.shape, self._batch, table)

    def _begin(self, task: Task, screening: Screening) -> None:
        task_key = digest([self.request.task.model_dump(mode="json"), task.data_hash])
        recipe = self.request.training.model_dump(mode="json")
        rungs = list(self.request.fidelity.rungs())
        seed = self.request.seed
        result_key = digest([task_key, recipe, rungs, seed, TRAINING_REVISION])
        with self.store.write() as session:
            job_rows.begin(
                session,
                self.job.id,
                self.token,
                task_key=task_key,
                result_key=result_key,
                data_hash=task.data_hash,
                trivial_loss=task.trivial_loss,
                scales={name: scale.to_dict() for name, scale in screening.scales.items()},
                device=device_name(),
            )
            self.job = job_rows.record(session, self.job.id)

    def _plan(self, task: Task, costs: Callable[[Architecture], dict[str, float]]) -> Plan:
        fidelity = self.request.fidelity
        strategy = create_strategy(
            self.request.strategy.name,
            space=self.space,
            objectives=list(self.request.objectives),
            seed=self.request.seed,
            known_costs=costs,
            constraints=self.request.constraints,
            **self.request.strategy.model_dump(exclude={"name"}),
        )
        rungs = Rungs(
            fidelity.rungs(),
            reduction_factor=fidelity.reduction_factor,
            objectives=list(self.request.objectives),
            constraints=self.request.constraints,
            audit=fidelity.audit,
            seed=self.request.seed,
        )
        kwh = self.settings.watts_per_core / JOULES_PER_KWH
        return Plan(
            job=self.job,
            request=self.request,
            strategy=strategy,
            rungs=rungs,
            costs=costs,
            checkpoints=self.folder.resolve(),
            elapsed=self._elapsed,
            draining=lambda: self.stopping,
            kwh_per_core_second=kwh,
        )

    def _elapsed(self) -> float:
        """Seconds of the job's earlier lives and of this life's search, without its preparation."""
        return self.job.elapsed_seconds + time.monotonic() - self.searching_since

    def _front(self) -> Front:
        return Jobs(self.store, self.settings).front(self.job.id)

    def _measure_front(self, bench: Bench) -> None:
        """Time the members of the front until it holds none whose latency is only predicted."""
        measured: set[str] = set()
        adaptive = self._adaptive()
        while not self.stopping:
            front = self._front()
            new = ({t.id for t in [*front.items, *front.homogeneous]} | adaptive) - measured
            if not new:
                return
            with self.store.read() as session:
                records = [trial_rows.get(session, trial) for trial in sorted(new)]
                sources = [trial_rows.source(session, record) for record in records]
            subjects = [self._subject(r, s) for r, s in zip(records, sources, strict=True)]
            latencies = models_on_cluster(subjects, bench)
            with self.store.write() as session:
                for trial, milliseconds in latencies.items():
                    trial_rows.set_metrics(session, trial, self.token, {"latency_ms": milliseconds})
            measured |= new

    def _adaptive(self) -> set[str]:
        """Fully trained adaptive models: predicted at their worst, they may be fast."""
        with self.store.read() as session:
            records = trial_rows.all(session, self.job.id, with_curve=False)
        trained = (TrialState.COMPLETED, TrialState.REUSED)
        return {
            r.id
            for r in records
            if r.state in trained and Architecture.model_validate(r.architecture).halting.adaptive
        }

    def _subject(self, record: TrialRecord, source: TrialRecord | None) -> Subject:
        """A trial with the weights of the one that was trained for it, if they are still there."""
        path = source and self.settings.checkpoints / source.job_id / f"{source.id}.pt"
        weights = path.resolve() if path and path.is_file() else None
        return Subject(record.id, Architecture.model_validate(record.architecture), weights)

    def _phase(self, phase: str) -> None:
        if self.stopping:
            return  # what is left is skipped, not entered
        log.info("phase", job=self.job.id, phase=phase)
        with self.store.write() as session:
            job_rows.set_phase(session, self.job.id, self.token, phase)

    def fail(self, reason: str) -> Exit:
        """End the job as failed, with the reason for the user."""
        log.error("job failed", job=self.job.id, reason=reason)
        return self._end(JobState.FAILED, reason)

    def _end(self, state: JobState, error: str | None) -> Exit:
        try:
            with self.store.write() as session:
                job_rows.finish(session, self.job.id, self.token, state, error=error)
        except Conflict:
            return Exit.DRAINED  # paused or cancelled at the last moment
        return Exit.FINISHED
