"""What the comparison in real time makes of its runs: no training, no clock."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.live import Run, curves, draw, table, volumes
from benchmarks.search.contenders import Found, decoded, note, noted
from benchmarks.search.samplers import distributions
from nas.search.pareto import Scale
from search_spaces import load_space

SCALES = (Scale(0.0, 4.0), Scale(10.0, 1000.0, log=True))


def test_what_is_proposed_becomes_a_member_and_legal_choices_stay() -> None:
    space = load_space("survey-lm")
    rng = random.Random(0)
    sizes = {name: len(domain.values) for name, domain in space.domains().items()}
    for _ in range(100):
        assert space.contains(decoded(space, {name: rng.randrange(n) for name, n in sizes.items()}))
    for _ in range(20):
        arch = space.sample(rng)
        held = space.decisions(arch)
        places = {
            name: domain.values.index(held[name]) if name in held else 0
            for name, domain in space.domains().items()
        }
        assert decoded(space, places) == arch


def test_decisions_are_coded_by_their_order_where_they_have_one() -> None:
    domains = load_space("survey-lm").domains()
    coded = distributions(domains)
    assert type(coded["width"]).__name__ == "IntDistribution"
    assert type(coded["position"]).__name__ == "CategoricalDistribution"
    assert type(distributions(domains, integers=False)["width"]).__name__ == (
        "CategoricalDistribution"
    )
    assert all(each._contains(0) for each in coded.values())


def test_the_hypervolume_grows_with_what_is_found() -> None:
    found = [Found(1.0, 2.0, 100.0), Found(2.0, 3.0, 500.0), Found(3.0, 1.0, 1000.0)]
    # half the loss and half the logarithm; dominated; on the border of the reference point
    assert volumes(found, SCALES) == pytest.approx([0.25, 0.25, 0.25])
    better = Found(4.0, 1.0, 10.0)
    assert volumes([*found, better], SCALES)[-1] == pytest.approx(0.75)
    assert volumes([], SCALES) == []


def test_a_run_is_a_staircase_over_time() -> None:
    run = Run("service", 0, [2.0, 5.0], [0.25, 0.75])
    assert [run.volume(at) for at in (1.9, 2.0, 4.9, 5.0, 60.0)] == [0.0, 0.25, 0.25, 0.75, 0.75]
    assert [run.reached(v) for v in (0.2, 0.25, 0.5)] == [2.0, 2.0, 5.0]
    assert math.isinf(run.reached(0.8))
    assert curves([run], np.array([1.0, 3.0])).tolist() == [[0.0, 0.25]]


def test_what_was_found_is_read_back(tmp_path: Path) -> None:
    assert noted(tmp_path) == []
    found = [Found(1.5, 2.0, 100.0), Found(2.5, 3.0, 50.0)]
    for each in found:
        note(tmp_path, each)
    assert noted(tmp_path) == found


def test_the_table_says_when_the_service_had_as_much(tmp_path: Path) -> None:
    runs = [
        Run("service", 0, [20.0, 50.0], [0.4, 0.8]),
        Run("ray_asha", 0, [90.0], [0.4]),
        Run("service", 1, [30.0, 60.0], [0.4, 0.8]),
        Run("ray_asha", 1, [60.0], [0.4]),
        Run("optuna_nsga2", 0, [10.0], [0.9]),
    ]
    title, _, _, *lines = table(runs, 100.0)
    assert "2 seeds" in title
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["service", "2", "0.2000", "0.6000", "0.8000", "-"]
    assert cells[1] == ["ray_asha", "1", "0.0000", "0.0000", "0.4000", "25 s"]
    assert cells[2][-1] == "never (1)"
    picture = tmp_path / "live.png"
    draw(runs, 100.0, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
