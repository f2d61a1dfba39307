"""Timing and calibration on this machine: whole, and near what whole models take.

No bound here is tight: machines that test are shared. ``benchmarks/`` has the figures.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import Counter

import pytest
import torch

from nas.catalogue.tasks import TaskShape
from nas.costs import known_costs
from nas.latency import LatencyTable
from nas.latency.terms import names
from nas.measure.latency import (
    around,
    build_probe,
    measure_models,
    measure_table,
    random_tokens,
    stepper,
    time_rounds,
)
from nas.measure.latency.probes import Probe, choose
from search_spaces import Architecture, load_space
from search_spaces.architecture import problems

SHAPE = TaskShape(vocab_size=64, num_outputs=64, sequence_length=128, causal=True, head="token")


@pytest.fixture(scope="module")
def architectures() -> list[Architecture]:
    space, rng = load_space("tiny"), random.Random(0)
    return [space.sample(rng) for _ in range(200)]


@pytest.fixture(scope="module")
def table(architectures: list[Architecture]) -> LatencyTable:
    return measure_table(architectures, SHAPE, random_tokens(SHAPE, 4), seconds=5.0)


def spin(milliseconds: float) -> None:
    """Compute for that long."""
    end = time.thread_time() + milliseconds / 1e3
    while time.thread_time() < end:
        pass


def test_a_calibration_knows_all_parts_of_the_pool(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    assert not any(table.missing(arch) for arch in architectures)
    assert table.modes.keys() == {"pass", "step"}
    assert table.anchor_ms > 0
    for fits in table.modes.values():
        assert 0 < fits.low <= fits.high
        assert fits.relative_error > 0


def test_predictions_are_near_what_whole_models_take(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    tokens = random_tokens(SHAPE, 4)
    models = {i: build_probe(arch, SHAPE) for i, arch in enumerate(architectures[:12])}
    passes = {i: lambda model=model: model(tokens) for i, model in models.items()}
    steps = {i: stepper(model, tokens) for i, model in models.items()}
    for mode, calls in (("pass", passes), ("step", steps)):
        rounds = time_rounds(calls)
        ratios = [
            table.predict(architectures[i], mode) / (ms * table.anchor_ms / rounds.anchor_ms)
            for i, ms in rounds.medians().items()
        ]
        assert 0.5 < statistics.median(ratios) < 2.0


def test_known_costs_carry_the_predictions(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    with_table = known_costs(architectures[0], SHAPE, 4, table)
    without = known_costs(architectures[0], SHAPE, 4)
    for name, value in table.metrics(architectures[0]).items():
        assert with_table.pop(name) == value
    assert with_table == without


def test_models_are_timed_in_interleaved_rounds() -> None:
    calls: list[str] = []

    def spinner(name: str, milliseconds: float) -> None:
        calls.append(name)
        spin(milliseconds)

    timed = measure_models(
        {"fast": lambda: spinner("fast", 2.0), "slow": lambda: spinner("slow", 20.0)}, rounds=4
    )
    assert 0 < 3 * timed["fast"] < timed["slow"]
    for start in range(0, len(calls), 2):  # each round has each once
        assert sorted(calls[start : start + 2]) == ["fast", "slow"]


def test_what_was_timed_beside_the_anchor_is_brought_to_its_best_state() -> None:
    rounds = time_rounds({"any": lambda: spin(2.0)}, rounds=3)
    for raw, scaled in zip(rounds.raw["any"], rounds.milliseconds["any"], strict=True):
        assert raw >= 2.0
        assert scaled <= raw * 1.5
    assert len(rounds.raw["any"]) == 3


def test_threads_and_cores_are_as_before() -> None:
    torch.set_num_threads(2)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    seen: list[int] = []
    time_rounds({"any": lambda: seen.append(torch.get_num_threads())}, rounds=2)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    if cores is not None:
        assert os.sched_getaffinity(0) == cores


def test_a_measurement_beside_other_work_says_so() -> None:
    context = torch.multiprocessing.get_context("spawn")
    others = [context.Process(target=spin, args=(60_000.0,)) for _ in range(2)]
    for other in others:
        other.start()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            rounds = time_rounds({"any": lambda: spin(100.0)}, rounds=3)
            if not rounds.alone:
                break
        assert not rounds.alone
    finally:
        for other in others:
            other.terminate()
            other.join()


def test_probes_hold_every_part_first_and_again_and_again() -> None:
    space, rng = load_space("survey-lm"), random.Random(3)
    pool = [space.sample(rng) for _ in range(300)]
    wanted = {name for arch in pool for name in names(arch)}
    chosen = list(choose(pool, seed=0))
    once: set[str] = set()
    for arch in chosen[: len(wanted)]:
        once.update(names(arch))
    assert once == wanted
    held = Counter(name for arch in chosen for name in set(names(arch)))
    assert min(held.values()) >= 5
    assert all(arch.repeats <= 2 for arch in chosen)


def test_a_probe_runs_all_layers_and_times_each() -> None:
    space, rng = load_space("survey-lm"), random.Random(4)
    drawn = (space.sample(rng) for _ in range(200))
    halting = [a for a in drawn if a.halting.adaptive][:6]
    for arch in halting:
        tokens = random_tokens(SHAPE, 2)
        probe = Probe(arch, SHAPE, "pass", tokens)
        out = probe.model(tokens)
        assert float(out.metrics["expected_depth"]) == arch.depth * arch.repeats
        probe()
        assert len(probe.seen[-1]) == 2 * arch.depth
        assert all(milliseconds > 0 for milliseconds in probe.seen[-1])


def test_variants_are_lawful_and_differ() -> None:
    layer = {"attention": {"type": "linformer"}, "feedforward": {"type": "dense"}, "heads": 2}
    arch = Architecture.model_validate({"width": 16, "position": "none", "layers": [layer]})
    found = around([arch], causal=False, count=20)
    assert found[0] == arch
    assert len(found) == 21
    assert len({a.width for a in found}) > 1
    assert len({a.layers[0].attention for a in found}) > 2
    assert not any(problems(a, causal=False) for a in found)
