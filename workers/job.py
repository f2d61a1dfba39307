"""One life of one job: build, rebuild from rows, search, verify, measure the front, finish.

Every write carries the token of the lease, so that a process that was given up cannot write.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import structlog

from nas.billing import Rates
from nas.costs import known_costs, latency_key
from nas.errors import Conflict, DataUnavailable
from nas.jobs import Jobs
from nas.latency import LatencyTable
from nas.measure.latency import device_name, merged
from nas.schemas import Front, JobRequest
from nas.search import create_strategy
from nas.settings import Settings
from nas.states import JobState
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
from workers.contexts import contexts_on_cluster
from workers.front import FrontTiming
from workers.ladder import rungs_of
from workers.measuring import Subject, models_on_cluster, table_on_cluster
from workers.orders import Exit, Order
from workers.screening import Screening, draw_pool, screen
from workers.search import Plan, Search
from workers.segments import Bench
from workers.tuning import Source, run_segments
from workers.verification import Verification

log = structlog.get_logger()

CALIBRATION_SECONDS = 20.0
"""So long a job measures the device at most, where its table is not known yet."""
CALIBRATION_SHARE = 0.05
"""And no more than this share of the time that it may take."""
LEAST_SECONDS = 2.0

CONTEXT = "effective_context"


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
        key = latency_key(device_name(), task.shape, self._batch)
        table = self._latency_table(key, pool, bench)
        costs = self._costs(task, table)
        self._begin(task, screen(pool, costs, self.request, task.trivial_loss))
        search = Search(self.store, self._plan(task, costs))
        self._train(search, bench, "searching")
        if not self.stopping:
            search.close()
            self._phase("measuring")
            self._measure_front(bench, key, table)
            self._measure_contexts(bench)
        self._verify(bench)
        return Exit.DRAINED if self.stopping else self._finish(search)

    def _train(self, source: Source, bench: Bench, phase: str) -> None:
        self._phase(phase)
        self.searching_since = time.monotonic()
        run_segments(source, bench, self.request.resources, self.folder / "tune")

    def _verify(self, bench: Bench) -> None:
        verification = Verification(
            self.store,
            self.job,
            self.request,
            front=self._front,
            subjects=self._subjects,
            train=lambda source, where: self._train(source, where, "verifying"),
            checkpoints=self.folder.resolve(),
            draining=lambda: self.stopping,
        )
        if verification.members and not self.stopping:
            self._phase("verifying")
            verification.run(bench)

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
            gpus=self.request.resources.gpus,
            context=CONTEXT in self.request.named_metrics,
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

    def _latency_table(self, key: str, pool: list[Architecture], bench: Bench) -> LatencyTable:
        """The device's table for this shape of work; parts that it lacks are measured now."""
        with self.store.read() as session:
            stored = [latency_rows.get(session, key, job) for job in (self.job.id, None)]
        known = LatencyTable.read(stored[0]) or LatencyTable.read(stored[1])
        new = [arch for arch in pool if known is None or known.missing(arch)]
        if known is not None and not new:
            return known
        seconds = self._calibration_seconds()
        measured = table_on_cluster(new, bench, self.request.seed, seconds)
        table = measured if known is None else merged(known, measured)
        # what was measured beside other work serves this job alone, all its lives
        with self.store.write() as session:
            document = table.model_dump(mode="json")
            owner = None if measured.alone else self.job.id
            latency_rows.put(session, key, document, owner)
        return table

    def _calibration_seconds(self) -> float:
        """A job that is meant to be short does not begin with a long measurement."""
        wall = self.request.budget.wall_seconds
        if wall is None:
            return CALIBRATION_SECONDS
        return min(CALIBRATION_SECONDS, max(LEAST_SECONDS, CALIBRATION_SHARE * wall))

    @property
    def _batch(self) -> int:
        return self.request.training.batch_size

    def _costs(self, task: Task, table: LatencyTable) -> Callable[[Architecture], dict[str, float]]:
        precision = self.request.training.precision
        return lambda arch: known_costs(arch, task.shape, self._batch, table, precision)

    def _begin(self, task: Task, screening: Screening) -> None:
        task_key = digest([self.request.task.model_dump(mode="json"), task.data_hash])
        recipe = self.request.training.model_dump(mode="json")
        rungs = list(self.request.fidelity.rungs())
        seed = self.request.seed
        start = ["inherit"] if self.request.inherit else []
        result_key = digest([task_key, recipe, rungs, seed, TRAINING_REVISION, *start])
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
                co2_kg_per_kwh=self.settings.co2_kg_per_kwh,
            )
            self.job = job_rows.record(session, self.job.id)

    def _plan(self, task: Task, costs: Callable[[Architecture], dict[str, float]]) -> Plan:
        strategy = create_strategy(
            self.request.strategy.name,
            space=self.space,
            objectives=list(self.request.objectives),
            seed=self.request.seed,
            known_costs=costs,
            constraints=self.request.constraints,
            **self.request.strategy.model_dump(exclude={"name"}),
        )
        return Plan(
            job=self.job,
            request=self.request,
            strategy=strategy,
            rungs=rungs_of(self.request),
            costs=costs,
            checkpoints=self.folder.resolve(),
            elapsed=self._elapsed,
            draining=lambda: self.stopping,
            rates=Rates.of(self.settings, self.request.resources),
        )

    def _elapsed(self) -> float:
        """Seconds of the job's earlier lives and of this life's search, without its preparation."""
        return self.job.elapsed_seconds + time.monotonic() - self.searching_since

    def _front(self) -> Front:
        return Jobs(self.store, self.settings).front(self.job.id)

    def _measure_front(self, bench: Bench, key: str, table: LatencyTable) -> None:
        timing = FrontTiming(
            self.store,
            self.job.id,
            self.token,
            table,
            front=self._front,
            subjects=self._subjects,
            draining=lambda: self.stopping,
        )
        corrected = timing.run(lambda subjects: models_on_cluster(subjects, bench))
        if corrected is not None:
            with self.store.write() as session:
                latency_rows.put(session, key, corrected.model_dump(mode="json"))

    def _measure_contexts(self, bench: Bench) -> None:
        """Add how much context the members of the front use, where the rungs have not measured it;
        since it is no objective then, the front stays as it is."""
        if CONTEXT not in self.request.task.metrics or self.stopping:
            return
        front = self._front()
        members = {t.id for t in [*front.items, *front.homogeneous] if CONTEXT not in t.metrics}
        resources = self.request.resources
        for context in contexts_on_cluster(self._subjects(members), bench, resources):
            with self.store.write() as session:
                trial_rows.set_metrics(
                    session,
                    context.trial,
                    self.token,
                    {CONTEXT: context.tokens},
                    evaluation_seconds=context.seconds,
                    core_seconds=context.seconds * resources.threads,
                )

    def _subjects(self, trials: Collection[str]) -> list[Subject]:
        with self.store.read() as session:
            records = [trial_rows.get(session, trial) for trial in sorted(trials)]
            sources = [trial_rows.source(session, record) for record in records]
        return [self._subject(r, s) for r, s in zip(records, sources, strict=True)]

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
