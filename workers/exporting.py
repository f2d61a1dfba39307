"""The process that makes one export under its lease: it needs torch, a worker does not."""

from __future__ import annotations

import os
import sys

import structlog

from nas.errors import LeaseLost, NasError, StoreUnavailable
from nas.export import Provenance, TrainingConfig, versions_here, write
from nas.logs import configure_logging
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.store import Store
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
    try:
        write(
            export.format,
            settings.exports / filename,
            document=_document(job, trial),
            checkpoint=checkpoint if checkpoint and checkpoint.is_file() else None,
        )
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
