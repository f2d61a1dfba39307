"""`make bench-latency-bound`: does a front keep its bound when it is measured again?

A search under a bound on the latency, on the service; then the members of its front are timed once
more with their trained weights, in the state of the machine that the job's latencies are of.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from workers.cluster import LEAN_RAY

os.environ.update(LEAN_RAY)

import torch

from nas.costs import latency_key
from nas.jobs import Jobs
from nas.latency import LatencyTable
from nas.measure import profile_many
from nas.measure.latency import device_name, time_rounds
from nas.schemas import Front, JobRequest, TrainingRecipe
from nas.settings import Settings
from nas.store import Store, latency
from nas.store.migrate import upgrade
from search_spaces import Architecture, load_space
from workers.measuring import Subject, forward_passes
from workers.segments import Bench
from workers.service import embedded_worker

SPACE, LENGTH = "survey-lm", 256
BATCH = TrainingRecipe().batch_size


def bound_of(seed: int) -> float:
    """Milliseconds that half of some random architectures are predicted to take less than."""
    rng = random.Random(seed)
    archs = [load_space(SPACE).sample(rng) for _ in range(200)]
    each = profile_many(archs, sequence_length=LENGTH, batch_size=BATCH)
    return round(statistics.median(costs["latency_ms"] for costs in each), 1)


def request(trials: int, bound: float, seed: int) -> JobRequest:
    """A search for the least loss at a latency of at most ``bound`` milliseconds."""
    return JobRequest.model_validate(
        {
            "task": {"name": "text_lm", "sequence_length": LENGTH},
            "space": SPACE,
            "objectives": ["loss", "latency_ms"],
            "constraints": [{"metric": "latency_ms", "max": bound}],
            "fidelity": {"max_steps": 27, "min_steps": 9},
            "budget": {"trials": trials},
            "verification": {"seeds": 0},
            "seed": seed,
        }
    )


def searched(job: JobRequest, folder: Path) -> tuple[Front, LatencyTable, Path]:
    """The front of a job, the table that its latencies are of, and where its weights are."""
    settings = Settings(data=folder)
    upgrade(settings.database_url)
    store = Store(settings.database_url)
    jobs = Jobs(store, settings)
    submitted, _ = jobs.submit(job)
    with embedded_worker(settings):
        while not jobs.get(submitted.id).state.final:
            time.sleep(0.5)
    key = latency_key(device_name(), job.task.shape(), job.training.batch_size)
    with store.read() as session:
        documents = [latency.get(session, key, owner) for owner in (submitted.id, None)]
    table = LatencyTable.read(documents[0]) or LatencyTable.read(documents[1])
    if table is None:
        raise SystemExit(f"the job kept no latency table: {jobs.get(submitted.id).error}")
    return jobs.front(submitted.id), table, settings.checkpoints / submitted.id


def again(job: JobRequest, front: Front, weights: Path, folder: Path) -> tuple[list[float], float]:
    """Milliseconds of the front's members, timed once more, and what the anchor took."""
    bench = Bench(
        task=job.task,
        dataset=None,
        cache=folder / "cache",
        recipe=job.training,
        max_steps=job.fidelity.max_steps,
        threads=1,
        device="cpu",
        stop_file=folder / "stop",
    )
    subjects = [
        Subject(t.id, Architecture.model_validate(t.architecture), weights / f"{t.id}.pt")
        for t in front.items
    ]
    rounds = time_rounds(forward_passes(subjects, bench), rounds=7, seconds=60.0)
    medians = rounds.medians()
    return [medians[trial.id] for trial in front.items], rounds.anchor_ms


def main() -> None:
    """Search, measure again, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| seed | bound ms | members | measured ÷ in the front | greatest ÷ bound | break it |")
    print("|------|----------|---------|-------------------------|------------------|----------|")
    for seed in range(options.seeds):
        job = request(options.trials, bound := bound_of(seed), seed)
        with tempfile.TemporaryDirectory() as folder:
            front, table, weights = searched(job, Path(folder))
            taken, anchor = again(job, front, weights, Path(folder))
        at_job = [ms * table.anchor_ms / anchor for ms in taken]
        ratios = [ms / t.metrics["latency_ms"] for ms, t in zip(at_job, front.items, strict=True)]
        spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
        broken = sum(ms > bound for ms in at_job)
        print(
            f"| {seed:>4} | {bound:>8} | {len(taken):>7} | {spread:>23} "
            f"| {max(at_job) / bound:>16.3f} | {broken:>8} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
