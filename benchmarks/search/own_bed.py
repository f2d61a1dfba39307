"""`python -m benchmarks.search.own_bed --architectures N`: train the table of our own bed.

Each architecture is trained as a job trains it, in segments from rung to rung, and becomes a line
of the table at once. Killed at any moment, the same command goes on; with a greater N it adds to
what is there. Every second architecture is homogeneous, the others are mixed: of two segments, of
four, and layer by layer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median

from scipy.stats import kendalltau

from benchmarks.search.survey import COMMITTED, SEED, Curve, Recipe, TableOfAnother, add, begin
from nas.catalogue.tasks import TextLM
from nas.costs import known_costs
from nas.measure.latency.device import device_name
from nas.schemas import Fidelity, TrainingRecipe
from nas.tasks import build_task
from nas.tasks.base import Task
from nas.training import TRAINING_REVISION
from nas.training.config import versions_here
from nas.training.segment import Segment, run_segment
from search_spaces import Architecture, SearchSpace, load_space

SPACE = "survey-lm@1"
TASK = TextLM(sequence_length=128)
TRAINING = TrainingRecipe(batch_size=4, learning_rate=0.003)
FIDELITY = Fidelity(max_steps=180, min_steps=20)
MIXED: tuple[int | None, ...] = (2, 4, None)
"""Segments of the mixed architectures, in turn."""
LICENCE = "Apache-2.0"


def main() -> None:
    """Train what is not there yet."""
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="own-bed-") as folder:
        task = the_task(Path(folder))
        try:
            curves = begin(options.out, recipe(task))
        except TableOfAnother as error:
            raise SystemExit(str(error)) from error
        todo = wanted(options.architectures, options.again, curves)
        for curve in trained(todo, Path(folder), options.processes):
            add(options.out, curve)
            curves.append(curve)
            print(f"{len(curves)}: {said(curve)}", flush=True)
    print("\n".join(summary(curves)))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.search.own_bed", description=__doc__)
    parser.add_argument("--architectures", type=int, default=320)
    parser.add_argument("--again", type=int, default=64, help="so many with a second seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=COMMITTED)
    return parser.parse_args()


def recipe(task: Task) -> Recipe:
    """What the table is made by, and where."""
    return Recipe(
        space=SPACE,
        task=TASK.model_dump(mode="json"),
        training=TRAINING.model_dump(mode="json"),
        steps=list(FIDELITY.rungs()),
        data_hash=task.data_hash,
        trivial_loss=task.trivial_loss,
        revision=TRAINING_REVISION,
        machine=device_name(),
        versions=versions_here(),
        licence=LICENCE,
    )


@cache
def the_task(cache_folder: Path) -> Task:
    """The data, once a process."""
    return build_task(TASK, dataset=None, cache=cache_folder)


def wanted(count: int, again: int, done: Sequence[Curve]) -> list[tuple[int, int, Architecture]]:
    """Number, seed and architecture of each training that is not there yet."""
    known = {(curve.number, curve.seed) for curve in done}
    archs = list(itertools.islice(architectures(load_space(SPACE)), count))
    second = range(min(again, count))
    plan = [*((n, SEED) for n in range(count)), *((n, SEED + 1) for n in second)]
    return [(n, seed, archs[n]) for n, seed in plan if (n, seed) not in known]


def architectures(space: SearchSpace) -> Iterator[Architecture]:
    """Members of the space, none twice; the first so many are always the same."""
    seen: set[str] = set()
    for number in itertools.count():
        rng = random.Random(f"own bed:{number}")
        mixed = number % 2 == 1
        segments = MIXED[number // 2 % len(MIXED)] if mixed else 1
        arch = space.sample(rng, segments)
        while arch.homogeneous == mixed or arch.fingerprint() in seen:
            arch = space.sample(rng, segments)
        seen.add(arch.fingerprint())
        yield arch


def trained(
    todo: Sequence[tuple[int, int, Architecture]], folder: Path, processes: int
) -> Iterator[Curve]:
    """Train all, giving each as it ends."""
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=end_with_parent
    )
    try:
        for ended in as_completed([pool.submit(train, *each, folder) for each in todo]):
            yield ended.result()
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Let this process end when its parent is gone, however that went."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def train(number: int, seed: int, arch: Architecture, folder: Path) -> Curve:
    """One training, from rung to rung as in a job."""
    task = the_task(folder)
    steps = FIDELITY.rungs()
    curve = Curve(
        number=number,
        seed=seed,
        architecture=json.loads(arch.canonical_json()),
        costs=known_costs(arch, task.shape, TRAINING.batch_size),
        metrics=[],
        training_seconds=[],
        evaluation_seconds=[],
    )
    checkpoint = folder / f"{number}-{seed}.pt"
    for to_steps in steps:
        segment = Segment(arch, TRAINING, steps[-1], to_steps, seed, checkpoint)
        try:
            result = run_segment(segment, task)
        except Exception as error:  # noqa: BLE001 - whatever a mechanism may raise ends its training
            return replace(curve, error=f"{type(error).__name__}: {error}")
        curve.metrics.append(result.metrics)
        curve.training_seconds.append(result.training_seconds)
        curve.evaluation_seconds.append(result.evaluation_seconds)
    checkpoint.unlink()
    return curve


def said(curve: Curve) -> str:
    """A line on a training."""
    if curve.error is not None:
        return f"architecture {curve.number} failed: {curve.error}"
    losses = " ".join(f"{metrics['loss']:.3f}" for metrics in curve.metrics)
    seconds = sum(curve.training_seconds) + sum(curve.evaluation_seconds)
    return f"architecture {curve.number}, seed {curve.seed}: loss {losses}, {seconds:.1f} s"


def summary(curves: Sequence[Curve]) -> Iterator[str]:
    """What the table holds, and how far its lower rungs and another seed rank alike."""
    whole = {(c.number, c.seed): c for c in curves if c.error is None}
    first = [c for c in whole.values() if c.seed == SEED]
    seconds = [sum(c.training_seconds) + sum(c.evaluation_seconds) for c in whole.values()]
    yield f"{len(whole)} trainings, {len(curves) - len(whole)} failed, {len(first)} architectures"
    if not first:
        return
    yield f"{sum(seconds) / 3600:.2f} core-hours, {median(seconds):.1f} s a training at the median"
    last = [c.metrics[-1]["loss"] for c in first]
    for rung, steps in enumerate(FIDELITY.rungs()[:-1]):
        alike = kendalltau([c.metrics[rung]["loss"] for c in first], last).statistic
        yield f"loss after {steps} steps against the last: Kendall {alike:.2f}"
    again = [c for c in first if (c.number, SEED + 1) in whole]
    if len(again) > 1:
        others = [whole[c.number, SEED + 1].metrics[-1]["loss"] for c in again]
        alike = kendalltau([c.metrics[-1]["loss"] for c in again], others).statistic
        yield f"last loss of two seeds, {len(again)} architectures: Kendall {alike:.2f}"


if __name__ == "__main__":
    main()
