"""A job in a real store whose search is driven without Ray."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.billing import Rates
from nas.jobs import Jobs
from nas.schemas import JobRequest
from nas.search import create_strategy
from nas.settings import Settings
from nas.store import Store, leases
from nas.store import jobs as job_rows
from nas.store import trials as trial_rows
from nas.store.migrate import upgrade
from nas.store.records import JobRecord, TrialRecord
from search_spaces import Architecture, load_space
from workers.ladder import rungs_of
from workers.search import Plan, Search
from workers.segments import Assignment, Outcome
from workers.tuning import Finished

REQUEST: dict[str, Any] = {
    "task": {"name": "text_lm", "sequence_length": 64},
    "space": "tiny",
    "objectives": ["loss", "parameters"],
    "strategy": {"name": "nsga2", "population_size": 4},
    "fidelity": {"max_steps": 27, "min_steps": 3, "reduction_factor": 3, "audit": 0},
    "budget": {"trials": 18},
}


class Bed:
    """A job in a fresh store, claimed, with whatever lives it takes to finish it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder)
        upgrade(self.settings.database_url)
        self.store = Store(self.settings.database_url)
        self.elapsed = 0.0

    def submit(self, **changes: Any) -> str:
        request = JobRequest.model_validate({**REQUEST, **changes})
        job, _ = Jobs(self.store, self.settings).submit(request)
        return job.id

    def claim(self) -> JobRecord:
        with self.store.write() as session:
            job = leases.claim_job(session, "worker", 30)
            assert job is not None
            job_rows.begin(
                session,
                job.id,
                job.token,
                task_key="task",
                result_key=f"result {job.request['fidelity']['max_steps']}",
                data_hash="data",
                trivial_loss=5.0,
                scales={},
            )
            return job_rows.record(session, job.id)

    def search(self, job: JobRecord) -> Search:
        request = JobRequest.model_validate(job.request)
        strategy = create_strategy(
            request.strategy.name,
            space=load_space("tiny"),
            objectives=list(request.objectives),
            seed=request.seed,
            known_costs=costs,
            **request.strategy.model_dump(exclude={"name"}),
        )
        plan = Plan(
            job=job,
            request=request,
            strategy=strategy,
            rungs=rungs_of(request),
            costs=costs,
            checkpoints=self.settings.checkpoints / job.id,
            elapsed=lambda: self.elapsed,
            draining=lambda: False,
            rates=Rates(1e-6, 1.0),
        )
        return Search(self.store, plan)

    def trials(self, job: str) -> list[TrialRecord]:
        with self.store.read() as session:
            return trial_rows.all(session, job)


def costs(arch: Architecture) -> dict[str, float]:
    return {"parameters": float(arch.width * arch.depth * 100)}


def train(assignment: Assignment) -> Outcome:
    """Wider and longer is better, a little differently for each architecture."""
    arch = Architecture.model_validate_json(assignment.architecture)
    noise = random.Random(assignment.architecture).random()
    loss = 5.0 - 0.01 * arch.width - 0.05 * assignment.to_steps + 0.1 * noise
    metrics = {"loss": loss, "accuracy": 0.1, "expected_depth": float(arch.depth)}
    return Outcome("finished", assignment.to_steps, metrics, 1.0, 0.5)


def drive(search: Search, slots: int = 2, stop_after: int | None = None) -> Iterator[Assignment]:
    """Run segments until the search is finished, in a shuffled order of ends; yields each ended."""
    rng = random.Random(0)
    running: list[Assignment] = []
    ended = 0
    while True:
        chosen = search.next() if len(running) < slots else None
        if isinstance(chosen, Finished):
            return
        if chosen is not None:
            running.append(chosen)
            continue
        if stop_after is not None and ended >= stop_after:
            return
        assert running, "nothing runs and nothing is finished: a stuck job"
        assignment = running.pop(rng.randrange(len(running)))
        search.ended(assignment, train(assignment))
        ended += 1
        yield assignment
