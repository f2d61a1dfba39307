"""The latency table: whole, additive, fast to ask, and near what whole models take.

No bound here is tight: machines that test are shared. ``benchmarks/`` has the figures.
"""

from __future__ import annotations

import json
import math
import random
import time

import pytest

from nas.catalogue.tasks import TaskShape
from nas.costs import ANY, LatencyTable, attention_key, known_costs
from nas.measure.latency import measure_models, measure_table, random_tokens
from search_spaces import Architecture, load_space

SHAPE = TaskShape(vocab_size=64, num_outputs=64, sequence_length=128, causal=True, head="token")


@pytest.fixture(scope="module")
def architectures() -> list[Architecture]:
    space, rng = load_space("tiny"), random.Random(0)
    return [space.sample(rng) for _ in range(200)]


@pytest.fixture(scope="module")
def table(architectures: list[Architecture]) -> LatencyTable:
    return measure_table(architectures, SHAPE, random_tokens(SHAPE, 4), alone=False)


def test_every_block_of_the_pool_is_measured(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    for arch in architectures:
        for layer in arch.layers:
            key = attention_key(layer.attention, arch.width, layer.heads, arch.position)
            assert table.blocks[key] > 0
        assert table.predict(arch) > 0


def test_layers_add_up(table: LatencyTable, architectures: list[Architecture]) -> None:
    deep = next(a for a in architectures if a.depth == 2 and a.homogeneous)
    shallow = deep.model_copy(update={"layers": deep.layers[:1]})
    frame = 2 * table.predict(shallow) - table.predict(deep)
    assert frame == pytest.approx(table.blocks[f"frame width={deep.width}"])


def test_it_survives_json(table: LatencyTable, architectures: list[Architecture]) -> None:
    again = LatencyTable.model_validate(json.loads(table.model_dump_json()))
    assert [again.predict(a) for a in architectures] == [table.predict(a) for a in architectures]


def test_what_was_not_measured_is_estimated_by_its_mechanism(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    kept = table.model_copy(update={"blocks": {}})
    ratios = [kept.predict(a) / table.predict(a) for a in architectures]
    assert 0.3 < math.exp(sum(map(math.log, ratios)) / len(ratios)) < 3.0
    assert all(math.isfinite(r) and r > 0 for r in ratios)


def test_known_costs_carry_the_prediction(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    with_table = known_costs(architectures[0], SHAPE, 4, table)
    without = known_costs(architectures[0], SHAPE, 4)
    assert with_table.pop("latency_ms") == table.predict(architectures[0])
    assert with_table == without


def test_models_are_timed_by_the_least_of_interleaved_rounds() -> None:
    calls: list[str] = []

    def sleeper(name: str, seconds: float) -> object:
        calls.append(name)
        time.sleep(seconds)
        return None

    timed = measure_models(
        {"fast": lambda: sleeper("fast", 0.002), "slow": lambda: sleeper("slow", 0.02)}, rounds=4
    )
    assert timed["fast"] < timed["slow"]
    assert timed["slow"] >= 20
    for start in range(0, len(calls), 2):  # each round has each once
        assert sorted(calls[start : start + 2]) == ["fast", "slow"]


def test_a_mechanism_that_was_never_measured_is_estimated_by_all(
    table: LatencyTable, architectures: list[Architecture]
) -> None:
    bare = table.model_copy(update={"blocks": {}, "fits": {ANY: table.fits[ANY]}})
    assert all(bare.missing(a) and bare.predict(a) > 0 for a in architectures)
    assert not any(table.missing(a) for a in architectures)


def test_tables_merge(architectures: list[Architecture]) -> None:
    halves = (architectures[:1], architectures[1:3])
    tables = [measure_table(h, SHAPE, random_tokens(SHAPE, 4), alone=True) for h in halves]
    merged = tables[0].merged(tables[1])
    assert merged.blocks.keys() == tables[0].blocks.keys() | tables[1].blocks.keys()
    assert not any(merged.missing(a) for half in halves for a in half)
