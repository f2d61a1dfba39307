"""`make bench-overhead`: what a trial costs beyond its training, and how busy the slots are.

The same trials go through four ways, one after the other: a bare loop in one process, Ray Tune as
it comes, Ray Tune with reused actors, and the service (store, rungs, events, Tune segments).
Trivial trials show the seconds per trial; longer ones the share of the slots' time that is
training.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.cluster import LEAN_RAY, Cluster

os.environ.update(LEAN_RAY)

import psutil
import ray
from ray import tune

from nas.jobs import Jobs
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.store import Store
from nas.store import trials as trial_rows
from nas.store.migrate import upgrade
from nas.tasks import build_task
from nas.training.segment import Segment, run_segment
from search_spaces import Architecture, load_space
from workers.service import embedded_worker

SLOTS = 2


def request(trials: int, steps: int) -> JobRequest:
    """A job of one rung over the smallest real task."""
    return JobRequest.model_validate(
        {
            "task": {"name": "image_classification"},
            "space": "efficient-encoder",
            "objectives": ["loss", "parameters"],
            "strategy": {"name": "random"},
            "training": {"batch_size": 2, "evaluation_batches": 1},
            "fidelity": {"max_steps": steps, "min_steps": steps, "audit": 0},
            "budget": {"trials": trials},
            "verification": {"seeds": 0},
            "resources": {"trials_at_once": SLOTS},
            "reuse": False,
        }
    )


def architectures(trials: int) -> list[Architecture]:
    """What every way trains."""
    space, rng = load_space("efficient-encoder"), random.Random(0)
    return [space.sample(rng) for _ in range(trials)]


def train(job: JobRequest, arch: Architecture, folder: Path, task: Any) -> dict[str, float]:
    """One trial, as the service trains it."""
    steps = job.fidelity.max_steps
    checkpoint = folder / f"{arch.fingerprint()}.pt"
    segment = Segment(arch, job.training, steps, steps, 0, checkpoint)
    result = run_segment(segment, task)
    return {**result.metrics, "training_seconds": result.training_seconds, "done": True}


class Trial(tune.Trainable):  # type: ignore[misc]
    """The same for Ray Tune."""

    def setup(self, config: dict[str, Any], job: str, folder: str) -> None:
        """Load the data once an actor."""
        self.job = JobRequest.model_validate_json(job)
        self.folder = Path(folder)
        self.task = build_task(self.job.task, dataset=None, cache=self.folder / "cache")
        self.arch = config["arch"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self.arch = new_config["arch"]
        return True

    def step(self) -> dict[str, float]:
        """Train it."""
        arch = Architecture.model_validate_json(self.arch)
        return train(self.job, arch, self.folder, self.task)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial has its own checkpoint."""


def bare(job: JobRequest, trials: int, folder: Path) -> tuple[float, float]:
    """A loop in this process: (seconds, training seconds)."""
    task = build_task(job.task, dataset=None, cache=folder / "cache")
    archs = architectures(trials + 1)
    train(job, archs[0], folder, task)  # imports and caches are nobody's overhead
    began = time.perf_counter()
    trained = [train(job, arch, folder, task) for arch in archs[1:]]
    return time.perf_counter() - began, sum(t["training_seconds"] for t in trained)


def with_tune(reuse: bool) -> Callable[[JobRequest, int, Path], tuple[float, float]]:
    """Ray Tune on the same architectures."""

    def run(job: JobRequest, trials: int, folder: Path) -> tuple[float, float]:
        with Cluster("local") as cluster:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            archs = [a.model_dump_json() for a in architectures(trials)]
            trainable = tune.with_parameters(Trial, job=job.model_dump_json(), folder=str(folder))
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1}),
                param_space={"arch": tune.grid_search(archs)},
                tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS, reuse_actors=reuse),
                run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
            )
            began = time.perf_counter()
            results = tuner.fit()
            seconds = time.perf_counter() - began
            training = sum(r.metrics["training_seconds"] for r in results)
            ray.shutdown()
        return seconds, training

    return run


def service(job: JobRequest, trials: int, folder: Path) -> tuple[float, float]:
    """The service, on proposals from the same space: first start to last end of a segment."""
    settings = Settings(data=folder / "service")
    upgrade(settings.database_url)
    store = Store(settings.database_url)
    jobs = Jobs(store, settings)
    submitted, _ = jobs.submit(job)
    with embedded_worker(settings), Watch() as watch:
        while not jobs.get(submitted.id).state.final:
            time.sleep(0.5)
    with store.read() as session:
        records = trial_rows.all(session, submitted.id)
    started = min(r.started_at for r in records if r.started_at)
    ended = max(r.finished_at for r in records if r.finished_at and r.curve)
    last = max(p.finished_at for r in records for p in r.curve)
    training = sum(r.training_seconds for r in records)
    evaluation = sum(r.evaluation_seconds for r in records)
    span = (min(ended, last) - started).total_seconds() if trials else 0.0
    print(
        f"    service: {len(records)} trials, evaluation {evaluation:.1f} s, "
        f"driver at most {watch.memory_mb:.0f} MB, its CPU {watch.cpu_seconds:.1f} s"
    )
    return span, training


class Watch:
    """The memory and CPU of the job's process meanwhile."""

    def __enter__(self) -> Watch:
        self.memory_mb = self.cpu_seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "workers.driver" in process.cmdline():
                        times = process.cpu_times()
                        self.cpu_seconds = max(self.cpu_seconds, times.user + times.system)
                        resident = process.memory_info().rss / 1e6
                        self.memory_mb = max(self.memory_mb, resident)
                except psutil.NoSuchProcess:
                    continue


WAYS: dict[str, Callable[[JobRequest, int, Path], tuple[float, float]]] = {
    "bare loop, one process": bare,
    "Ray Tune, default": with_tune(reuse=False),
    "Ray Tune, reused actors": with_tune(reuse=True),
    "service": service,
}


def compare(title: str, trials: int, steps: int, ways: list[str], repeats: int) -> None:
    """Run every way ``repeats`` times, interleaved, and print the medians."""
    print(f"\n{title}: {trials} trials of {steps} steps, {SLOTS} slots")
    seen: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _, way in itertools.product(range(repeats), ways):
        folder = Path(tempfile.mkdtemp(prefix="overhead-"))
        try:
            seen[way].append(WAYS[way](request(trials, steps), trials, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"| {'way':<24} | s per trial | training / (slots × span) |")
    print(f"|{'-' * 26}|{'-' * 13}|{'-' * 27}|")
    for way, pairs in seen.items():
        slots = 1 if way.startswith("bare") else SLOTS
        each = statistics.median(seconds / trials for seconds, _ in pairs)
        share = statistics.median(training / (slots * seconds) for seconds, training in pairs)
        print(f"| {way:<24} | {each:>11.3f} | {share:>25.1%} |")


def main() -> None:
    """Trivial trials, then longer ones, then (with --many) a job of many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trivial", type=int, default=40, help="trivial trials a way")
    parser.add_argument("--long", type=int, default=12, help="trials of some ten seconds")
    parser.add_argument("--long-steps", type=int, default=400)
    parser.add_argument("--many", type=int, default=0, help="trivial trials in one job")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    if options.trivial:
        compare("Trivial trials", options.trivial, 1, list(WAYS), options.repeats)
    if options.long:
        ways = ["bare loop, one process", "service"]
        compare("Longer trials", options.long, options.long_steps, ways, options.repeats)
    if options.many:
        compare("One large job", options.many, 1, ["service"], 1)


if __name__ == "__main__":
    sys.exit(main())
