"""What a table says: near the truth on a machine that is linear in the terms, and how it learns."""

from __future__ import annotations

import json
import random
import time

import pytest

from nas.catalogue.tasks import TaskShape
from nas.latency import LatencyTable, Measured
from nas.measure.latency import merged
from search_spaces import Architecture, load_space
from tests.latency.machines import pool, table_of, truth

SHAPE = TaskShape(vocab_size=64, num_outputs=64, sequence_length=128, causal=True, head="token")


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return table_of(pool("survey-lm", 150), SHAPE, 4)


@pytest.fixture(scope="module")
def unseen() -> list[Architecture]:
    space, rng = load_space("survey-lm"), random.Random(1)
    return [space.sample(rng) for _ in range(60)]


def test_models_that_were_not_measured_are_predicted(
    table: LatencyTable, unseen: list[Architecture]
) -> None:
    for mode in ("pass", "step"):
        errors = [
            abs(table.predict(arch, mode) / truth(arch, table.work(mode)) - 1) for arch in unseen
        ]
        assert sum(errors) / len(errors) < 0.03
        assert table.modes[mode].relative_error < 0.05


def test_the_interval_holds_nine_of_ten(table: LatencyTable, unseen: list[Architecture]) -> None:
    held = 0
    for arch in unseen:
        low, high = table.interval("pass", table.predict(arch))
        assert low <= high
        held += low <= truth(arch, table.work("pass")) <= high
    assert held >= 0.75 * len(unseen)


def test_every_cycle_of_the_layers_is_paid(table: LatencyTable) -> None:
    arch = next(a for a in pool("survey-lm") if a.repeats == 2 and not a.halting.adaptive)
    once, twice, thrice = (
        table.predict(arch.model_copy(update={"repeats": repeats})) for repeats in (1, 2, 3)
    )
    assert thrice - twice == pytest.approx(twice - once)
    assert twice > 1.2 * once


def test_metrics_of_decoders_and_of_encoders(
    table: LatencyTable, unseen: list[Architecture]
) -> None:
    found = table.metrics(unseen[0])
    assert found["latency_ms"] == table.predict(unseen[0])
    assert found["step_latency_ms"] == table.predict(unseen[0], "step")
    assert found["throughput"] == pytest.approx(4 * 128 / (found["latency_ms"] / 1e3))
    encoders = pool("survey-encoder", 80)
    shape = TaskShape(64, 10, 128, causal=False, head="pooled")
    assert table_of(encoders, shape, 4).metrics(encoders[0]).keys() == {"latency_ms", "throughput"}


def test_what_a_table_lacks_is_missing(table: LatencyTable, unseen: list[Architecture]) -> None:
    assert not any(table.missing(arch) for arch in unseen)
    assert table.missing(unseen[0].model_copy(update={"width": 512}))
    small = table_of(pool("tiny"), SHAPE, 4)
    strange = next(a for a in unseen if a.layers[0].attention.type == "reformer")
    assert small.missing(strange)
    assert small.predict(strange) > 0  # by all others of its kind


def test_it_survives_json(table: LatencyTable, unseen: list[Architecture]) -> None:
    again = LatencyTable.read(json.loads(table.model_dump_json()))
    assert again == table
    assert [again.predict(a) for a in unseen] == [table.predict(a) for a in unseen]


def test_tables_of_another_version_say_nothing(table: LatencyTable) -> None:
    document = table.model_dump(mode="json")
    assert LatencyTable.read(document) is not None
    assert LatencyTable.read(None) is None
    assert LatencyTable.read({**document, "version": 1}) is None
    blocks = {"device": "a machine", "batch_size": 4, "blocks": {"frame width=16": 1.0}, "fits": {}}
    assert LatencyTable.read(blocks) is None


def test_measured_models_correct_what_is_predicted_of_their_kin(
    table: LatencyTable, unseen: list[Architecture]
) -> None:
    work = table.work("pass")
    slow = {"attention cascade": 2.0, "attention linear": 2.0}

    def holds(arch: Architecture) -> bool:
        return any(layer.attention.type in ("cascade", "linear") for layer in arch.layers)

    def error(known: LatencyTable, archs: list[Architecture]) -> float:
        wrong = [abs(known.predict(a) / truth(a, work, slow) - 1) for a in archs]
        return sum(wrong) / len(wrong)

    seen, others = unseen[:30], unseen[30:]
    corrected = table.corrected("pass", [Measured(a, truth(a, work, slow)) for a in seen])
    kin = [a for a in others if holds(a)]
    strangers = [a for a in others if not holds(a)]
    assert error(corrected, kin) < 0.6 * error(table, kin)
    assert error(corrected, strangers) < 0.1
    assert corrected.predict(kin[0], "step") == table.predict(kin[0], "step")
    assert table.corrected("pass", []) == table


def test_two_calibrations_know_what_each_of_them_knows(unseen: list[Architecture]) -> None:
    narrow = [a for a in pool("survey-lm", 400) if a.width <= 48]
    wide = [a for a in pool("survey-lm", 400) if a.width > 48]
    first, second = table_of(narrow, SHAPE, 4), table_of(wide, SHAPE, 4)
    both = merged(first, second)
    assert any(first.missing(a) for a in unseen)
    assert not any(both.missing(a) for a in unseen)
    errors = [abs(both.predict(a) / truth(a, both.work("pass")) - 1) for a in unseen]
    assert sum(errors) / len(errors) < 0.05


def test_a_calibration_on_a_slower_day_counts_as_on_the_first(unseen: list[Architecture]) -> None:
    first = table_of(pool("survey-lm", 150), SHAPE, 4)
    slower = first.at_anchor(2 * first.anchor_ms)
    assert slower.predict(unseen[0]) == pytest.approx(2 * first.predict(unseen[0]))
    assert merged(first, slower).predict(unseen[0]) == pytest.approx(
        first.predict(unseen[0]), rel=0.01
    )


def test_a_mechanism_is_priced_once_however_many_models_have_it(table: LatencyTable) -> None:
    space, rng = load_space("survey-lm"), random.Random(2)
    many = [space.sample(rng) for _ in range(2000)]
    started = time.process_time()
    for arch in many:
        table.metrics(arch)
    assert time.process_time() - started < 10  # a bound for any machine; see benchmarks/costs.py
