"""`make bench-costs`: how far what is said of an architecture before training holds.

Random architectures of the survey spaces that no table has seen, at several lengths: latency and
decoding step against their prediction, as they are timed and in the anchor's state; FLOPs against
the counter; memory against a fresh process; and how long 2,000 profiles take. Then once more
beside a training on the other core, which is what a measuring slot is there to prevent.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from scipy.stats import kendalltau

from nas.catalogue.tasks import TaskShape
from nas.latency import LatencyTable, Mode
from nas.measure import profile_many
from nas.measure.flops import count_flops
from nas.measure.latency import build_probe, measure_table, random_tokens, stepper, time_rounds
from nas.measure.latency.timing import Rounds
from nas.measure.process_memory import measure_memory
from search_spaces import Architecture, SearchSpace, load_space
from search_spaces.model_cost import ModelCost, model_cost

SPACES = ("survey-lm", "survey-encoder")
LENGTHS = (256, 512, 1024, 2048)
TOKENS = 4096
LEAST_MB = 150.0
"""Of peak memory: with less the allocator and the libraries would show."""
VOCABULARY = 256
SEEN, UNSEEN = 1, 73
"""Seeds of the pools."""

Row = tuple[float, float]
"""What was predicted, what was measured."""
Rows = dict[str, list[Row]]

TRAINING = """
import torch
torch.set_num_threads(1)
layer = torch.nn.TransformerEncoderLayer(256, 4, batch_first=True)
optimizer = torch.optim.AdamW(layer.parameters())
while True:
    layer(torch.randn(8, 256, 256)).square().mean().backward()
    optimizer.step()
"""


def shape_of(space: SearchSpace, length: int) -> TaskShape:
    """Bytes in, bytes out."""
    return TaskShape(VOCABULARY, VOCABULARY, length, space.causal, "token")


def draw(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Layers chosen one by one."""
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(count)]


def time_unseen(
    archs: Sequence[Architecture], shape: TaskShape, batch: int
) -> Rounds[tuple[Mode, int]]:
    """Passes and steps of whole models, all layers of which are run."""
    tokens = random_tokens(shape, batch)
    passes: dict[tuple[Mode, int], Callable[[], object]] = {}
    for i, arch in enumerate(archs):
        model = build_probe(arch, shape)
        passes["pass", i] = partial(model, tokens)
        if shape.decodes:
            passes["step", i] = stepper(model, tokens)
    return time_rounds(passes, rounds=7, seconds=60.0, seed=UNSEEN)


def compare(
    table: LatencyTable, archs: Sequence[Architecture], rounds: Rounds[tuple[Mode, int]]
) -> Rows:
    """Predictions beside what was timed, by "mode, manner"."""
    rows: Rows = {}
    scaled = rounds.medians()
    for (mode, i), raw in rounds.raw.items():
        predicted = table.predict(archs[i], mode)
        anchored = scaled[mode, i] * table.anchor_ms / rounds.anchor_ms
        rows.setdefault(f"{mode}, raw", []).append((predicted, statistics.median(raw)))
        rows.setdefault(f"{mode}, anchored", []).append((predicted, anchored))
    return rows


def report(title: str, rows: Rows) -> None:
    """Errors and ranks, a line for each manner."""
    for manner, pairs in sorted(rows.items()):
        predicted, measured = np.array(pairs).T
        errors = np.abs(predicted / measured - 1)
        tau = kendalltau(predicted, measured).statistic
        print(
            f"| {title:<22} | {manner:<14} | {len(pairs):>3} | {errors.mean():>6.1%} "
            f"| {np.quantile(errors, 0.9):>6.1%} | {np.median(predicted / measured):>5.2f} "
            f"| {tau:>7.3f} |",
            flush=True,
        )


def heading(title: str) -> None:
    """Of a table of errors."""
    print(f"\n{title}")
    print("| what                   | manner         |   n |   MAPE | 9 of 10 |  bias | Kendall |")
    print("|------------------------|----------------|-----|--------|--------|-------|---------|")


def latencies(each: int, seconds: float) -> dict[tuple[str, int], LatencyTable]:
    """Of ``each`` unseen architectures a space and length; the tables that predicted them."""
    heading("Latency, predicted and measured")
    tables = {}
    for name in SPACES:
        space = load_space(name)
        together: Rows = {}
        for length in LENGTHS:
            shape, batch = shape_of(space, length), max(1, TOKENS // length)
            pool = draw(space, 500, SEEN)
            table = measure_table(pool, shape, random_tokens(shape, batch), seconds=seconds)
            tables[name, length] = table
            archs = draw(space, each, UNSEEN * length)
            rows = compare(table, archs, time_unseen(archs, shape, batch))
            report(f"{name} {length}", rows)
            for manner, pairs in rows.items():
                together.setdefault(manner, []).extend(pairs)
        report(f"{name} all", together)
    print(f"alone: {all(table.alone for table in tables.values())}")
    return tables


def beside_training(tables: dict[tuple[str, int], LatencyTable], each: int) -> None:
    """The same tables against times that were taken while another process trains."""
    heading("The same while another process trains: outside of a measuring slot")
    for name in SPACES:
        space, length = load_space(name), LENGTHS[1]
        shape, batch = shape_of(space, length), TOKENS // length
        archs = draw(space, each, UNSEEN * length)
        with training():
            rounds = time_unseen(archs, shape, batch)
        report(f"{name} {length}", compare(tables[name, length], archs, rounds))
        print(f"it says that it was alone: {rounds.alone}")


@contextmanager
def training() -> Iterator[None]:
    """A process that trains meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", TRAINING])
    try:
        time.sleep(3.0)
        yield
    finally:
        process.terminate()
        process.wait()


def flops(each: int) -> None:
    """Arithmetic against the counter."""
    print("\nFLOPs of a pass against the counter")
    for name in SPACES:
        space = load_space(name)
        shape = shape_of(space, LENGTHS[0])
        tokens, errors = random_tokens(shape, 2), []
        for arch in draw(space, each, UNSEEN):
            counted = count_flops(build_probe(arch, shape), tokens)
            cost = known(arch, shape, 2)
            outside = max(cost.flops_low - counted, counted - cost.flops, 0)
            errors.append(outside / counted)
        print(f"{name}: outside of flops_low … flops by {max(errors):.3%} at most, {each} models")


def memory(each: int) -> None:
    """Arithmetic against a fresh process, of models that do not halt early."""
    print("\nMemory of a fresh process against the arithmetic")
    for name in SPACES:
        space = load_space(name)
        shape = shape_of(space, LENGTHS[2])
        fixed = [a for a in draw(space, 50 * each, UNSEEN) if not a.halting.adaptive][:each]
        errors: dict[str, list[float]] = {}
        for arch in fixed:
            batch = 8
            while (said := known(arch, shape, batch).metrics())["peak_memory_mb"] < LEAST_MB:
                batch *= 2
            for metric, found in measure_memory(arch, shape, batch).items():
                errors.setdefault(metric, []).append(abs(said[metric] / found - 1))
        for metric, off in errors.items():
            mean, most = statistics.mean(off), max(off)
            print(f"{name}: {metric} off by {mean:.1%}, at most {most:.1%}, {len(off)} models")


def known(arch: Architecture, shape: TaskShape, batch: int) -> ModelCost:
    """The arithmetic."""
    return model_cost(
        arch,
        batch_size=batch,
        sequence_length=shape.sequence_length,
        vocab_size=shape.vocab_size,
        num_outputs=shape.num_outputs,
        causal=shape.causal,
        head=shape.head,
    )


def profiles(count: int) -> None:
    """Seconds for many architectures, the device's table being there."""
    space = load_space("survey-lm")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        profile_many(draw(space, 500, SEEN), sequence_length=LENGTHS[0])
        archs = draw(space, count, UNSEEN)
        started = time.perf_counter()
        profile_many(archs, sequence_length=LENGTHS[0])
        first = time.perf_counter() - started
        started = time.perf_counter()
        profile_many(archs, sequence_length=LENGTHS[0])
        again = time.perf_counter() - started
    print(f"\n{count} profiles: {first:.2f} s, the same again {again:.2f} s")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=12, help="architectures a space and length")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each calibration")
    parser.add_argument("--memory", type=int, default=5, help="fresh processes a space")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables = latencies(options.each, options.seconds)
    beside_training(tables, options.each)
    flops(options.each)
    memory(options.memory)
    profiles(2000)


if __name__ == "__main__":
    main()
