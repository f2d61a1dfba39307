"""The service as it is by default: a new one, with its worker, that knows nothing yet."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.search.contenders import COST, OBJECTIVES, QUALITY, SLOTS, STEPS, Found, note
from benchmarks.search.own_bed import FIDELITY, SPACE, TASK, TRAINING
from nas.jobs import Jobs
from nas.schemas import Budget, JobRequest, Resources, Verification
from nas.settings import Settings
from nas.store import Store, trials
from nas.store.migrate import upgrade
from workers.service import embedded_worker


def search(deadline: float, seed: int, folder: Path) -> None:
    """Submit one job, and read in the end when its trials were fully trained."""
    settings = Settings(data=folder)
    upgrade(settings.database_url)
    store = Store(settings.database_url)
    jobs = Jobs(store, settings)
    job, _ = jobs.submit(request(deadline - time.time(), seed))
    with embedded_worker(settings):
        while time.time() < deadline and not jobs.get(job.id).state.final:
            time.sleep(0.5)
    with store.read() as session:
        records = trials.all(session, job.id)
    for record in records:
        for point in record.curve:
            if point.steps == STEPS[-1]:
                at = point.finished_at.timestamp()
                note(folder, Found(at, point.metrics[QUALITY], record.metrics[COST]))


def request(seconds: float, seed: int) -> JobRequest:
    """The job."""
    return JobRequest(
        task=TASK,
        space=SPACE,
        objectives=OBJECTIVES,
        training=TRAINING,
        fidelity=FIDELITY,
        budget=Budget(wall_seconds=seconds),
        verification=Verification(seeds=0),
        resources=Resources(trials_at_once=SLOTS),
        reuse=False,
        seed=seed,
    )
