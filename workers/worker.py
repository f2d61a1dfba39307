"""A worker: keeps a warm Ray and a warm process, claims a job under a lease, tends it to its end.

It imports neither torch nor ray: it must stay alive when they do not.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from nas.errors import LeaseLost, NotFound, StoreUnavailable
from nas.settings import Settings
from nas.states import JobState
from nas.store import Store, ids, leases
from nas.store import exports as export_rows
from nas.store import jobs as job_rows
from nas.store import workers as worker_rows
from nas.store.records import ExportRecord, JobRecord
from workers.cluster import LEAN_RAY, Cluster
from workers.orders import Exit, Order, crash_reason, forget_crash
from workers.processes import Child, Identity, adopt_orphans, bury_orphans
from workers.remains import Remains

log = structlog.get_logger()

RENEW_SECONDS = 1.0
BEAT_SECONDS = 2.0
IDLE_SECONDS = 5.0
"""After so long without a job Ray is started afresh: jobs in a row are not made to wait for it."""
SPARE_PAUSE = 5.0
STOP_GRACE = 3.0
"""So long may a job's process take to checkpoint and wind down before it is killed."""
CRASHES = 3
"""So often in a row, with no segment finished in between, may a job bring its process down."""
EXPORT_ATTEMPTS = 3


@dataclass
class RunningJob:
    """A job in this worker's hands, and the process that runs it."""

    record: JobRecord
    child: Child
    renewed: float
    stopping_since: float | None = None


@dataclass
class RunningExport:
    """An export in this worker's hands, and the process that makes it."""

    record: ExportRecord
    child: Child
    renewed: float = field(default_factory=time.monotonic)


class Worker:
    """One worker process's life."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._id = ids.new_id("worker")
        self._identity = Identity.of(os.getpid())
        self._remains = Remains(settings.data / "workers", self._id)
        self._job: RunningJob | None = None
        self._export: RunningExport | None = None
        self._spare: Child | None = None
        self._beat_at = 0.0
        self._spare_after = 0.0
        self._worn_since: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; then drain, give back what is held, and leave nothing behind.

        Raises:
            Unsupported: Ray cannot start.
        """
        adopt_orphans()
        self._remains.reap_others()
        with Cluster(self._settings.ray_address) as cluster:
            try:
                log.info("worker ready", worker=self._id, ray=cluster.address)
                while not stop.wait(self._settings.poll_seconds):
                    self._turn(cluster)
            finally:
                self._leave()
        self._remains.forget()

    def _turn(self, cluster: Cluster) -> None:
        """One look at everything; a database that is away is tried again at the next."""
        bury_orphans([c.process for c in self._children()])
        if not cluster.alive:
            log.error("ray has died, starting it again", worker=self._id)
            self._end_job_process(grace=0.0)
            self._renew_cluster(cluster)
        try:
            self._beat(cluster)
            self._tend_job()
            self._tend_export()
            if self._job is None and self._spare is not None:
                self._claim(self._spare)
            if self._worn_and_idle() and cluster.private:
                self._renew_cluster(cluster)
        except StoreUnavailable as error:
            log.warning("database unavailable", reason=str(error))
            self._give_up_expired()
        self._keep_spare(cluster)

    def _worn_and_idle(self) -> bool:
        if self._job is not None or self._export is not None or self._worn_since is None:
            return False
        return time.monotonic() - self._worn_since > IDLE_SECONDS

    def _renew_cluster(self, cluster: Cluster) -> None:
        """Ray starts processes ahead once, at its start: a job that has used them leaves none.

        So an idle worker starts it afresh, and the next job finds them warm again.
        """
        if self._spare is not None:
            self._spare.end(grace=0.0)
        cluster.restart()
        self._worn_since = None
        self._spare = self._warm_process(cluster)

    # --- the job --------------------------------------------------------------------------------

    def _claim(self, child: Child) -> None:
        """Claim a job for a waiting process, in one transaction: a job that is held has its order.

        Were the database lost half-way, the job would be held and nobody would run it.
        """
        with self._store.write() as session:
            record = leases.claim_job(session, self._id, self._settings.lease_seconds)
            if record is None:
                return
            if record.state is JobState.CANCELLING:
                leases.release_job(session, record.id, record.token)
                return
            leases.record_process(
                session,
                record.id,
                record.token,
                pid=child.identity.pid,
                started=child.identity.started,
            )
        log.info("job claimed", job=record.id, token=record.token, attempt=record.attempts)
        self._spare = None
        self._job = RunningJob(record, child, time.monotonic())
        child.say(Order(record.id, record.token).to_line())

    def _tend_job(self) -> None:
        job = self._job
        if job is None:
            return
        if job.child.exit_code is not None:
            self._job_ended(job, job.child.exit_code)
            return
        now = time.monotonic()
        if job.stopping_since is not None and now - job.stopping_since > STOP_GRACE:
            job.child.end(grace=0.0)
            return
        if now - job.renewed < RENEW_SECONDS:
            return
        try:
            with self._store.write() as session:
                state = leases.renew_job(
                    session, job.record.id, job.record.token, self._settings.lease_seconds
                )
        except LeaseLost:
            # finished by the process, which ends now; or taken by another worker, and it must end
            job.stopping_since = job.stopping_since or now
            return
        job.renewed = now
        if state is not JobState.RUNNING and job.stopping_since is None:
            log.info("job told to stop", job=job.record.id, state=state)
            job.stopping_since = now
            job.child.terminate()

    def _job_ended(self, job: RunningJob, code: int) -> None:
        """Give the job back; while the database is away it stays in hand, to be given back later.

        A lease left to run out would cost the job the wait, and count as a crash of its own.
        """
        orderly = code in list(Exit) or job.stopping_since is not None
        # LeaseLost: the process finished its job, or another worker has it. NotFound: deleted
        with suppress(LeaseLost, NotFound):
            if orderly:
                with self._store.write() as session:
                    leases.release_job(session, job.record.id, job.record.token)
            else:
                self._crashed(job.record, code)
        log.info("job process ended", job=job.record.id, exit_code=code)
        self._job = None
        self._worn_since = time.monotonic()

    def _crashed(self, record: JobRecord, code: int) -> None:
        how = crash_reason(self._settings, record.id) or (
            f"signal {-code}" if code < 0 else f"exit code {code}"
        )
        with self._store.write() as session:
            current = job_rows.record(session, record.id)
            if current.attempts >= CRASHES and current.state is JobState.RUNNING:
                reason = f"its process ended {CRASHES} times without finishing a segment ({how})"
                log.error("job given up", job=record.id, reason=reason)
                job_rows.finish(session, record.id, record.token, JobState.FAILED, error=reason)
            else:
                log.warning("job process crashed", job=record.id, how=how)
                leases.abandon_job(session, record.id, record.token)
        forget_crash(self._settings, record.id)

    def _end_job_process(self, grace: float) -> None:
        if self._job is not None:
            self._job.stopping_since = self._job.stopping_since or time.monotonic()
            self._job.child.end(grace)

    def _give_up_expired(self) -> None:
        """Without a database no lease is renewed: once it must have run out, stop for certain."""
        job = self._job
        if job is None or job.child.exit_code is not None:
            return
        if time.monotonic() - job.renewed > self._settings.lease_seconds:
            log.error("lease ran out while the database was away", job=job.record.id)
            self._end_job_process(grace=0.0)

    def _warm_process(self, cluster: Cluster) -> Child:
        settings = self._settings.model_dump_json()
        return Child(
            "workers.driver",
            [cluster.address, *(["private"] if cluster.private else [])],
            environment={**LEAN_RAY, "NAS_JOB_SETTINGS": settings},
            stdout=subprocess.DEVNULL,  # Tune's banners; what matters is logged
        )

    def _keep_spare(self, cluster: Cluster) -> None:
        """Have a warm process wait for the next job; one that fails is not replaced at once."""
        if self._spare is not None and self._spare.exit_code is not None:
            code = self._spare.exit_code
            log.warning("the waiting process has ended", exit_code=code)
            if code == Exit.RAY_UNAVAILABLE and cluster.private and self._job is None:
                cluster.restart()  # its holder lives, but what it holds does not
            self._spare = None
            self._spare_after = time.monotonic() + SPARE_PAUSE
        if self._spare is None and time.monotonic() >= self._spare_after:
            self._spare = self._warm_process(cluster)

    # --- exports --------------------------------------------------------------------------------

    def _tend_export(self) -> None:
        running = self._export
        if running is None:
            self._claim_export()
        elif running.child.exit_code is not None:
            self._export_ended(running, running.child.exit_code)
            self._export = None
        elif time.monotonic() - running.renewed > RENEW_SECONDS:
            running.renewed = time.monotonic()
            self._renew_export(running)

    def _renew_export(self, running: RunningExport) -> None:
        record = running.record
        try:
            with self._store.write() as session:
                export_rows.renew(session, record.id, record.token, self._settings.lease_seconds)
        except LeaseLost:
            return  # its process has just finished, or another worker has it and it cannot write

    def _claim_export(self) -> None:
        with self._store.write() as session:
            record = export_rows.claim(session, self._id, self._settings.lease_seconds)
        if record is not None:
            settings = self._settings.model_dump_json()
            child = Child(
                "workers.exporting",
                [record.id, str(record.token)],
                environment={**LEAN_RAY, "NAS_JOB_SETTINGS": settings},
            )
            self._export = RunningExport(record, child)

    def _export_ended(self, running: RunningExport, code: int) -> None:
        """A process that was brought down has recorded nothing: try again, but not for ever."""
        if code == Exit.FINISHED:
            return
        if code == Exit.STORE_UNAVAILABLE:
            self._give_back_export(running)
            return
        record = running.record
        try:
            with self._store.write() as session:
                if record.attempts >= EXPORT_ATTEMPTS:
                    reason = f"its process ended {record.attempts} times (exit code {code})"
                    export_rows.fail(session, record.id, record.token, reason)
                else:
                    export_rows.abandon(session, record.id, record.token)
        except LeaseLost:
            return

    def _give_back_export(self, running: RunningExport) -> None:
        try:
            with self._store.write() as session:
                export_rows.release(session, running.record.id, running.record.token)
        except LeaseLost:
            return  # it was finished after all

    # --- life -----------------------------------------------------------------------------------

    def _children(self) -> list[Child]:
        held = [self._job, self._export]
        return [h.child for h in held if h] + ([self._spare] if self._spare else [])

    def _beat(self, cluster: Cluster) -> None:
        if time.monotonic() - self._beat_at < BEAT_SECONDS:
            return
        self._beat_at = time.monotonic()
        self._remains.record(
            [self._identity, *cluster.processes, *(c.identity for c in self._children())]
        )
        with self._store.write() as session:
            worker_rows.beat(
                session,
                self._id,
                host=socket.gethostname(),
                pid=self._identity.pid,
                started=self._identity.started,
            )

    def _leave(self) -> None:
        log.info("worker leaves", worker=self._id)
        try:
            self._end_job_process(grace=STOP_GRACE)
            if self._job is not None:
                self._job_ended(self._job, self._job.child.process.wait())
            if self._export is not None:
                self._export.child.end(grace=STOP_GRACE)
                self._give_back_export(self._export)
            with self._store.write() as session:
                worker_rows.leave(session, self._id)
        except StoreUnavailable as error:
            log.warning("left without a word to the database", reason=str(error))
        finally:
            for child in self._children():
                child.end(grace=0.0)
