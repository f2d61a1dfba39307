"""The process that makes one export under its lease: it needs torch, a worker does not."""

from __future__ import annotations

import os
import sys

import structlog

from nas.errors import DataUnavailable, LeaseLost, NasError, NotFound, StoreUnavailable
from nas.export import ExportedTrial, Provenance, TrainingConfig, versions_here, write
from nas.jobs import Jobs
from nas.labelled import read
from nas.logs import configure_logging
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.store import Store
from nas.store import datasets as dataset_rows
from nas.store import exports as export_rows
from nas.store import jobs as job_rows
from nas.store import trials as trial_rows
from nas.store.records import JobRecord, TrialRecord
from search_spaces import Architecture, InvalidInput
from workers.orders import Exit
from workers.processes import when_parent_ends

log = structlog.get_logger()


def make_export(settings: Settings, store: Store, export_id: str, token: int) -> None:
    """Write the file of an export and record it, or record why it cannot be.

    Raises:
        LeaseLost: another worker makes it by now.
    """
    with store.read() as session:
        export = export_rows.get(session, export_id)
        trial = trial_rows.get(session, export.trial_id)
        job = job_rows.record(session, trial.job_id)
        source = trial_rows.source(session, trial)
    filename = f"{export.id}.zip"
    checkpoint = source and settings.checkpoints / source.job_id / f"{source.id}.pt"
    jobs = Jobs(store, settings)
    exported = ExportedTrial(
        _document(job, trial),
        checkpoint=checkpoint if checkpoint and checkpoint.is_file() else None,
        labels=_labels(settings, store, job),
        front=jobs.front(job.id),
        bill=jobs.get(job.id).bill,
    )
    try:
        write(export.format, settings.exports / filename, exported)
    except (NasError, InvalidInput, OSError) as error:
        log.error("export failed", export=export.id, reason=str(error))
        with store.write() as session:
            export_rows.fail(session, export.id, token, str(error))
        return
    with store.write() as session:
        export_rows.finish(session, export.id, token, filename)


def _document(job: JobRecord, trial: TrialRecord) -> TrainingConfig:
    request = JobRequest.model_validate(job.request)
    return TrainingConfig.model_validate(
        {
            "architecture": Architecture.model_validate(trial.architecture),
            "task": request.task,
            "recipe": request.training,
            "max_steps": job.max_steps,
            "seed": trial.seed,
            "data_hash": job.data_hash,
            "provenance": Provenance(
                job=job.id, trial=trial.id, versions=versions_here(), metrics=trial.metrics
            ),
        }
    )


def _labels(settings: Settings, store: Store, job: JobRecord) -> tuple[str, ...] | None:
    """The names of the task's classes, by the task or by the data that were uploaded for it."""
    task = JobRequest.model_validate(job.request).task
    if task.data_kind != "labelled" or job.dataset is None:
        return task.labels()
    try:
        with store.read() as session:
            known = dataset_rows.get(session, job.dataset)
        if known.created_at > job.created_at:  # other data, of the same name
            return None
        rows = read(settings.datasets / known.sha256, "/task/dataset")
        return tuple(sorted({row.label for row in rows}))
    except (NotFound, DataUnavailable, InvalidInput):  # gone since: the classes keep their numbers
        return None


def main() -> None:
    """``python -m workers.exporting EXPORT TOKEN``."""
    settings = Settings.model_validate_json(os.environ["NAS_JOB_SETTINGS"])
    configure_logging(settings)
    when_parent_ends(lambda: os._exit(1))
    export_id, token = sys.argv[1:]
    try:
        make_export(settings, Store(settings.database_url), export_id, int(token))
    except LeaseLost as error:
        log.warning("lease lost", export=export_id, reason=str(error))
    except StoreUnavailable as error:
        log.error("store unavailable", export=export_id, reason=str(error))
        sys.exit(Exit.STORE_UNAVAILABLE)


if __name__ == "__main__":
    main()
