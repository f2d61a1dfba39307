"""The use cases: what the service, the command line and the dashboard do with jobs."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from nas import reports, schemas
from nas.catalogue.metrics import METRICS
from nas.catalogue.tasks import PYTHON_SOURCE, DataKind
from nas.errors import Conflict, NotFound
from nas.jobs import documents, submission
from nas.jobs.front_queries import job_front, task_front
from nas.jobs.fronts import Fidelities
from nas.jobs.pricing import profile
from nas.jobs.report import trust_report
from nas.jobs.uploads import check_content, received
from nas.settings import Settings
from nas.states import ExportState, JobState, TrialState
from nas.store import (
    Store,
    cursors,
    datasets,
    events,
    exports,
    progress,
    scores,
    trial_pages,
    trials,
)
from nas.store import jobs as job_rows
from nas.store.records import TrialRecord
from search_spaces.errors import InvalidInput, Problem

MAX_PAGE = 1000
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
BEST = "best:"

_log = logging.getLogger(__name__)


class Jobs:
    """Search jobs and what belongs to them, in one store; safe to share between threads.

    Every method raises StoreUnavailable when the database cannot be used, and NotFound for an id
    that does not exist.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._scores = scores.ScoreCache()

    # --- jobs ---------------------------------------------------------------------------------

    def submit(
        self, request: schemas.JobRequest, idempotency_key: str | None = None
    ) -> tuple[schemas.Job, bool]:
        """Queue a job, or give the one that the same key queued before (False).

        Raises:
            InvalidInput: with every problem of the request; nothing is written.
            Conflict: the key was used for another request.
        """
        asked = submission.digest(request)
        key = idempotency_key and hashlib.sha256(idempotency_key.encode()).hexdigest()
        with self._store.read() as session:
            known = job_rows.known_submission(session, request.project, key, asked)
            uploads = {data.name: data for data in datasets.page(session)}
        if known is not None:
            return self.get(known.id), False
        resolved = submission.resolve(request, uploads)
        with self._store.write() as session:
            if resolved.dataset is not None:
                datasets.hold(session, resolved.dataset)
            record, created = job_rows.create(
                session,
                project=request.project,
                name=request.name,
                request=resolved.request,
                request_hash=asked,
                idempotency_key=key,
                space=resolved.space,
                space_definition=resolved.space_definition,
                task=request.task.name,
                dataset=resolved.dataset,
                max_steps=request.fidelity.max_steps,
            )
            return self._document(progress.overview(session, [record])[0]), created

    def get(self, job_id: str) -> schemas.Job:
        """The job as it stands."""
        with self._store.read() as session:
            record = job_rows.record(session, job_id)
            return self._document(progress.overview(session, [record])[0])

    def cancel(self, job_id: str) -> schemas.Job:
        """Cancel a job: at once unless a worker runs it, which then ends it. Idempotent.

        Raises:
            Conflict: it has ended another way.
        """
        with self._store.write() as session:
            record = job_rows.cancel(session, job_id)
            return self._document(progress.overview(session, [record])[0])

    def pause(self, job_id: str) -> schemas.Job:
        """Let a job stand still; idempotent.

        Raises:
            Conflict: it is being cancelled or has ended.
        """
        with self._store.write() as session:
            record = job_rows.pause(session, job_id)
            return self._document(progress.overview(session, [record])[0])

    def resume(self, job_id: str) -> schemas.Job:
        """Queue a paused job again; idempotent.

        Raises:
            Conflict: it is being cancelled or has ended.
        """
        with self._store.write() as session:
            record = job_rows.resume(session, job_id)
            return self._document(progress.overview(session, [record])[0])

    def delete(self, job_id: str) -> None:
        """Remove a job that has ended, with its trials, events, exports and files.

        Raises:
            Conflict: it has not ended.
        """
        with self._store.write() as session:
            gone = job_rows.delete(session, job_id)
        folder = self._settings.checkpoints / gone.id
        try:
            if folder.exists():
                shutil.rmtree(folder)
            for filename in gone.export_filenames:
                (self._settings.exports / filename).unlink(missing_ok=True)
        except OSError as error:
            # the job is gone all the same; what is left takes space and nothing else
            _log.warning("files of deleted job %s are left behind: %s", gone.id, error)

    def events(self, job_id: str, after: int = 0, limit: int = 500) -> Sequence[schemas.Event]:
        """Up to ``limit`` events of a job that follow number ``after``, in order."""
        with self._store.read() as session:
            found = events.after(session, job_id, after, limit)
            if not found and job_id not in events.heads(session, [job_id]):
                raise NotFound(f"there is no job {job_id}")
        return [documents.event(event) for event in found]

    def event_heads(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The number of the last event of each of these jobs that exists: cheap to poll."""
        with self._store.read() as session:
            return events.heads(session, job_ids)

    # --- trials -------------------------------------------------------------------------------

    def trials(
        self,
        job_id: str,
        *,
        state: TrialState | None = None,
        sort: str = "number",
        cursor: str | None = None,
        limit: int = 50,
    ) -> schemas.TrialPage:
        """A page of a job's trials; those without the value they are sorted by come last.

        Raises:
            InvalidInput: an unknown order, a limit out of range, a cursor of another list.
        """
        _check_limit(limit)
        with self._store.read() as session:
            job_rows.record(session, job_id)
            found, following = trial_pages.page(
                session, job_id, state=state, sort=sort, cursor=cursor, limit=limit
            )
        return schemas.TrialPage(items=[documents.trial(t) for t in found], next=following)

    def trial(self, trial_id: str) -> schemas.TrialDetail:
        """A trial with its learning curve."""
        with self._store.read() as session:
            return documents.trial_detail(trials.get(session, trial_id, with_curve=True))

    def front(
        self,
        job_id: str,
        *,
        objectives: Sequence[str] | None = None,
        bounds: Sequence[schemas.Constraint] = (),
        verified: bool = False,
        fidelity: Fidelities = "full",
    ) -> schemas.Front:
        """The Pareto front under the job's constraints and these bounds.

        objectives: by default the job's.  verified: only verified trials, by what fresh seeds
        measured.  fidelity: ``any`` compares unfinished trials by their last rung, too.

        Raises:
            InvalidInput: with a pointer for each problem.
        """
        return job_front(
            self._store,
            self._scores,
            job_id,
            objectives=objectives,
            bounds=bounds,
            verified=verified,
            fidelity=fidelity,
        )

    def task_front(
        self,
        task: str | None = None,
        job_id: str | None = None,
        *,
        objectives: Sequence[str] | None = None,
        bounds: Sequence[schemas.Constraint] = (),
        verified: bool = False,
        fidelity: Fidelities = "full",
    ) -> schemas.TaskFront:
        """The front across jobs of one task; see ``nas.jobs.front_queries``."""
        return task_front(
            self._store,
            self._scores,
            task,
            job_id,
            objectives=objectives,
            bounds=bounds,
            verified=verified,
            fidelity=fidelity,
        )

    def report(self, job_id: str) -> reports.TrustReport:
        """What the job's numbers are worth."""
        return trust_report(self._store, job_id)

    # --- exports ------------------------------------------------------------------------------

    def request_export(
        self, job_id: str, request: schemas.ExportRequest
    ) -> tuple[schemas.Export, bool]:
        """Ask for a trial in a format, or get the export that is there already (False).

        Raises:
            NotFound: the job has no such trial, or no front yet.
            InvalidInput: ``best:`` of something that is no metric.
        """
        trial_id = self._chosen(job_id, request.trial)
        with self._store.write() as session:
            record, created = exports.request(session, trial_id, request.format)
        return documents.export(record), created

    def export(self, export_id: str) -> schemas.Export:
        """An export as it stands."""
        with self._store.read() as session:
            return documents.export(exports.get(session, export_id))

    def export_path(self, export_id: str) -> Path:
        """The file of an export that has succeeded.

        Raises:
            Conflict: it has not.
        """
        record = self.export(export_id)
        if record.state != ExportState.SUCCEEDED or record.filename is None:
            because = f": {record.error}" if record.error else ""
            raise Conflict(f"export {export_id} is {record.state}{because}")
        path = self._settings.exports / Path(record.filename).name
        if not path.is_file():
            raise NotFound(f"the file of export {export_id} is not there any more")
        return path

    def profile(self, request: schemas.ProfileRequest) -> schemas.ProfileResponse:
        """What architectures cost, without training.

        Raises:
            InvalidInput: an architecture cannot stand in a slot of that kind.
        """
        return profile(self._store, request)

    # --- data sets ----------------------------------------------------------------------------

    def add_dataset(
        self, name: str, chunks: Iterable[bytes], kind: DataKind = "text"
    ) -> tuple[schemas.Dataset, bool]:
        """Take in a data set, or give the one of the same name and content (False).

        Raises:
            InvalidInput: a name that cannot be used, no data or too much of it, or rows that cannot
                be used.
            Conflict: the name stands for other content, or for another kind of it.
        """
        if name == PYTHON_SOURCE or not DATASET_NAME.fullmatch(name):
            raise InvalidInput(
                [Problem("/name", f"{name!r} cannot name a data set", (DATASET_NAME.pattern,))]
            )
        folder = self._settings.datasets
        with received(folder, chunks, self._settings.max_upload_bytes) as upload:
            check_content(upload.path, kind)
            with self._store.write() as session:
                record, created = datasets.add(
                    session, name=name, kind=kind, sha256=upload.sha256, size=upload.size
                )
                # before the commit: a row never points to a file that is not there
                upload.settle(folder)
            return documents.dataset(record), created

    def datasets(self, *, cursor: str | None = None, limit: int = 100) -> schemas.DatasetPage:
        """A page of the data sets, by name.

        Raises:
            InvalidInput: a limit out of range, a cursor of another list.
        """
        _check_limit(limit)
        after = cursors.decode(cursor, (str,))[0] if cursor is not None else ""
        with self._store.read() as session:
            found = datasets.page(session, after=after, limit=limit + 1)
        following = cursors.encode(found[limit - 1].name) if len(found) > limit else None
        return schemas.DatasetPage(
            items=[documents.dataset(record) for record in found[:limit]], next=following
        )

    def delete_dataset(self, name: str) -> None:
        """Remove a data set, and its file unless another name stands for the same content.

        Raises:
            Conflict: a job that has not ended needs it.
        """
        with self._store.write() as session:
            # under the lock on the names, so that nobody takes the file up meanwhile
            if unused := datasets.delete(session, name):
                (self._settings.datasets / unused).unlink(missing_ok=True)

    # --- the list, last: its name hides the builtin in the class body ---------------------------

    def list(
        self,
        *,
        state: JobState | None = None,
        project: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> schemas.JobPage:
        """A page of jobs, newest first.

        Raises:
            InvalidInput: a limit out of range, a cursor of another list.
        """
        _check_limit(limit)
        before = cursors.decode(cursor, (str,))[0] if cursor is not None else None
        with self._store.read() as session:
            found = job_rows.page(
                session, state=state, project=project, before=before, limit=limit + 1
            )
            following = cursors.encode(found[limit - 1].id) if len(found) > limit else None
            overviews = progress.overview(session, found[:limit])
        return schemas.JobPage(items=[self._document(o) for o in overviews], next=following)

    def _document(self, overview: progress.Overview) -> schemas.Job:
        return documents.job(overview, self._settings, datetime.now(UTC))

    def _chosen(self, job_id: str, wanted: str) -> str:
        """The id of the trial that is named, or chosen from the front as it is now."""
        if wanted != "knee" and not wanted.startswith(BEST):
            with self._store.read() as session:
                job_rows.record(session, job_id)
                record: TrialRecord = trials.get(session, wanted)
            if record.job_id != job_id:
                raise NotFound(f"there is no trial {wanted} in job {job_id}")
            return record.id
        metric = wanted.removeprefix(BEST)
        if wanted != "knee" and metric not in METRICS:
            raise InvalidInput([Problem("/trial", f"{metric!r} is not a metric", tuple(METRICS))])
        found = self.front(job_id)
        if found.knee is None:
            raise NotFound(f"job {job_id} has no front yet: no trial is complete and feasible")
        if wanted == "knee":
            return found.knee
        measured = [t for t in found.items if metric in t.metrics]
        if not measured:
            raise NotFound(f"no trial on the front of job {job_id} has {metric}")
        sign = -1 if METRICS[metric].direction == "maximize" else 1
        return min(measured, key=lambda t: sign * t.metrics[metric]).id


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput([Problem("/limit", f"{limit} is not between 1 and {MAX_PAGE}")])
