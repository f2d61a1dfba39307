"""The replay of rungs, on a small table of our own form and on examples worked out by hand."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search.__main__ import arguments, tasks
from benchmarks.search.beds import Bed, load_beds
from benchmarks.search.halving import Halving, MoAsha, RayAsha, climb, epsilon_net
from benchmarks.search.own_bed import architectures
from benchmarks.search.replay import run
from benchmarks.search.rivals import ABLATIONS_WITH_RUNGS, ALL, WITH_RUNGS, Ours, Trainings
from benchmarks.search.survey import (
    TABLE,
    Curve,
    Recipe,
    TableOfAnother,
    add,
    begin,
    read,
    survey,
)
from benchmarks.search.tables import Row, TableMissing, TableSpace, Training
from search_spaces import load_space
from search_spaces.values import Domain

STEPS = (30, 90, 270)
ROWS = 36

RECIPE = Recipe(
    space="survey-lm@1",
    task={"name": "text_lm"},
    training={"batch_size": 4},
    steps=list(STEPS),
    data_hash="ab" * 32,
    trivial_loss=3.2,
    revision=2,
    machine="a machine",
    versions={"python": "3.11.7"},
    licence="Apache-2.0",
)


def curves(count: int, seed: int = 0) -> list[Curve]:
    """Trainings whose losses fall with the size, and from rung to rung."""
    rng = random.Random(seed)
    made = []
    for number, arch in enumerate(itertools.islice(architectures(load_space("survey-lm")), count)):
        size = 1e4 * arch.width * arch.depth
        loss = 3 - 0.2 * math.log10(size) + rng.random()
        made.append(
            Curve(
                number=number,
                seed=seed,
                architecture=arch.model_dump(mode="json"),
                costs={"parameters": size, "flops": 7 * size},
                metrics=[{"loss": loss + 0.5 * (2 - rung)} for rung in range(3)],
                training_seconds=[1.0, 2.0, 6.0],
                evaluation_seconds=[0.1] * 3,
            )
        )
    return made


def written(path: Path, trainings: Sequence[Curve]) -> Path:
    begin(path, RECIPE)
    for curve in trainings:
        add(path, curve)
    return path


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    folder = tmp_path_factory.mktemp("tables")
    written(folder / TABLE, curves(ROWS))
    return load_beds(folder, ["survey-parameters"])[0]


# --- the table ----------------------------------------------------------------------------------


def test_only_finished_first_trainings_are_rows(tmp_path: Path) -> None:
    first = curves(6)
    first[2] = replace(first[2], metrics=first[2].metrics[:1], error="TrialFailed: diverged")
    written(tmp_path / TABLE, [*first[::-1], *curves(3, seed=1)])
    space = survey(tmp_path)
    assert space.steps == STEPS
    assert [row.metrics["loss"] for row in space.rows] == [
        curve.metrics[-1]["loss"] for curve in first if curve.error is None
    ]
    assert space.rows[1].at(0) == {**first[1].costs, **first[1].metrics[0]}
    assert space.rows[1].at(2) == space.rows[1].metrics
    assert list(space.homogeneous()) == [0, 3]  # numbers 0 and 4; 2 has failed


def test_without_a_table_it_is_said_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.search.survey.COMMITTED", tmp_path / "none.jsonl")
    with pytest.raises(TableMissing, match=r"survey_lm\.jsonl is not there.*own_bed"):
        survey(tmp_path)
    monkeypatch.setattr(
        "benchmarks.search.survey.COMMITTED", written(tmp_path / "committed.jsonl", curves(4))
    )
    assert len(survey(tmp_path).rows) == 4


def test_half_a_line_counts_for_nothing(tmp_path: Path) -> None:
    made = curves(3)
    path = written(tmp_path / "new" / TABLE, made[:2])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 2, "se')
    assert read(path) == (RECIPE, made[:2])
    assert begin(path, RECIPE) == made[:2]
    assert path.read_bytes() == whole
    add(path, made[2])
    assert read(path)[1] == made
    path.write_bytes(whole[:20])
    assert begin(path, RECIPE) == []
    assert read(path) == (RECIPE, [])


def test_a_table_of_another_recipe_is_not_added_to(tmp_path: Path) -> None:
    path = written(tmp_path / TABLE, curves(1))
    before = path.read_bytes()
    with pytest.raises(TableOfAnother, match="another steps, machine"):
        begin(path, replace(RECIPE, steps=[10, 100], machine="b"))
    assert path.read_bytes() == before


def test_choices_of_mechanisms_that_are_not_chosen_are_not_looked_at(bed: Bed) -> None:
    everything = {name: domain.values[0] for name, domain in bed.space.domains().items()}
    for row in range(ROWS):
        assert bed.space.assemble({**everything, **bed.space.decisions(row)}) == row


# --- the replay ---------------------------------------------------------------------------------


def test_a_lower_rung_costs_its_share_and_is_on_no_front(bed: Bed) -> None:
    def rival(bed: Bed, seed: int) -> Trainings:
        yield from map(Training._make, [(0, 0), (0, 1), (5, 0), (0, 2), (3, 2)])

    found = run(bed, "a rival", rival, 0, 10)
    assert found.spent == pytest.approx([1 / 9, 1 / 3, 4 / 9, 10 / 9, 19 / 9])
    assert found.shares[:3] == (0.0, 0.0, 0.0)
    assert found.shares[3] == bed.share([0])
    assert found.shares[4] == bed.share([0, 3])
    assert found.trainings(found.shares[4]) == pytest.approx(19 / 9)
    assert len(run(bed, "a rival", rival, 0, 1).spent) == 4


@pytest.mark.parametrize("name", [*WITH_RUNGS, *ABLATIONS_WITH_RUNGS])
def test_every_rival_climbs_and_trains_no_row_twice(name: str, bed: Bed) -> None:
    trainings = list(ALL[name](bed, 0))
    assert len(set(trainings)) == len(trainings)
    by_row: dict[int, list[int]] = {}
    for row, rung in trainings:
        by_row.setdefault(row, []).append(rung)
    assert all(rungs == list(range(len(rungs))) for rungs in by_row.values())
    assert len(by_row) > ROWS / 2
    completed = sum(rungs[-1] == bed.top for rungs in by_row.values())
    assert 0 < completed < len(by_row) / 2


def test_without_rungs_everything_is_trained_in_full(bed: Bed) -> None:
    trainings = list(itertools.islice(Ours("random")(bed, 0), 10))
    assert [training.rung for training in trainings] == [2] * 10


def test_rivals_with_rungs_run_where_there_are_some(bed: Bed) -> None:
    named = {name for name, _, _ in tasks(arguments(["."]), bed)}
    assert {*WITH_RUNGS, "pareto", "optuna-tpe"} <= named
    assert not named & {*ABLATIONS_WITH_RUNGS}
    assert {*ABLATIONS_WITH_RUNGS} <= {
        name for name, _, _ in tasks(arguments([".", "--ablations"]), bed)
    }


# --- halving ------------------------------------------------------------------------------------


def bed_of(*results: tuple[float, float]) -> Bed:
    """A bed on which each row has this loss, at every rung, and this cost."""
    metrics = [{"loss": loss, "cost": cost} for loss, cost in results]
    rows = [Row({"depth": 1}, (0,), {}, each, (each, each)) for each in metrics]
    space = TableSpace(rows, {"depth": Domain((1,))}, STEPS)
    return Bed("by hand", space, ("loss", "cost"), np.array(results), 1.0)


def decided(halving: Halving, rows: int) -> Iterator[bool]:
    return (halving.goes_on(row, 0) for row in range(rows))


def test_ray_stops_by_the_loss_alone() -> None:
    bed = bed_of((1.0, 10), (2.0, 20), (0.5, 30), (0.9, 1))
    # against the best third so far: none yet; 1.0; 1.33; 0.83, however cheap
    assert list(decided(RayAsha(bed, 0), 4)) == [True, False, True, False]


def test_an_epsilon_net_lets_the_cheap_go_on_and_stops_the_dominated() -> None:
    bed = bed_of((1.0, 10), (2.0, 20), (3.0, 1), (5.0, 40))
    for seed in range(8):
        assert list(decided(MoAsha(bed, seed), 4)) == [True, False, True, False]


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_an_epsilon_net_takes_the_farthest_first_in_any_unit(unit: float) -> None:
    front = np.array([(0.0, 10.0), (10.0, 0.0), (5.0, 5.0), (0.1, 9.9)]) * (1.0, unit)
    assert epsilon_net(front, 0) == [0, 1, 2, 3]
    assert epsilon_net(front, 3) == [3, 1, 2, 0]


def test_climbing_ends_where_halving_says_so(bed: Bed) -> None:
    class AfterTwo:
        def goes_on(self, row: int, rung: int) -> bool:
            return rung < 1

    assert list(climb(bed, 4, AfterTwo())) == [(4, 0), (4, 1)]
    assert list(climb(bed, 4, None)) == [(4, 2)]
