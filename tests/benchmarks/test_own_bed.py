"""The making of our own table: which architectures, what is left to train, and one training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.search import own_bed
from benchmarks.search.own_bed import architectures, summary, train, wanted
from benchmarks.search.survey import Curve, read
from nas.errors import TrialFailed
from nas.schemas import Fidelity
from search_spaces import Architecture, load_space
from search_spaces.segments import starts

COUNT = 60


@pytest.fixture(scope="module")
def drawn() -> list[Architecture]:
    return list(itertools.islice(architectures(load_space(own_bed.SPACE)), COUNT))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def curve(number: int, seed: int, arch: Architecture) -> Curve:
    return Curve(
        number=number,
        seed=seed,
        architecture=arch.model_dump(mode="json"),
        costs={},
        metrics=[{"loss": 4.0 - rung - 0.01 * number} for rung in range(3)],
        training_seconds=[1.0, 2.0, 6.0],
        evaluation_seconds=[0.5, 0.5, 0.5],
    )


def test_half_of_the_architectures_are_homogeneous_and_none_comes_twice(
    drawn: list[Architecture],
) -> None:
    assert [arch.homogeneous for arch in drawn] == [True, False] * (COUNT // 2)
    assert len({arch.fingerprint() for arch in drawn}) == COUNT
    halves = drawn[1::6]
    for arch in halves:
        first, second = starts(arch.depth, 2)
        assert len(set(arch.layers[first:second])) == len(set(arch.layers[second:])) == 1
    assert max(len(set(arch.layers)) for arch in drawn[5::6]) > 2


def test_more_architectures_add_to_the_fewer(drawn: list[Architecture]) -> None:
    assert [arch for _, _, arch in wanted(5, 2, [])] == [*drawn[:5], *drawn[:2]]
    done = [curve(1, 0, drawn[1]), curve(0, 1, drawn[0])]
    left = [(number, seed) for number, seed, _ in wanted(6, 2, done)]
    assert left == [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (1, 1)]


def test_a_training_goes_from_rung_to_rung(
    drawn: list[Architecture], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_bed, "FIDELITY", Fidelity(max_steps=6, min_steps=2))
    smallest = min(drawn, key=lambda arch: (arch.depth * arch.repeats, arch.width))
    found = train(3, 0, smallest, data)
    assert (found.number, found.error) == (3, None)
    assert len(found.metrics) == len(found.training_seconds) == len(found.evaluation_seconds) == 2
    first, last = (metrics["loss"] for metrics in found.metrics)
    assert 0 < last < first
    assert found.costs["parameters"] > 0
    assert Architecture.model_validate(found.architecture) == smallest
    again = train(3, 0, smallest, data)
    assert again.metrics == found.metrics
    assert not list(data.glob("*.pt"))


def test_a_failed_training_says_why(
    drawn: list[Architecture], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: Any) -> None:
        raise TrialFailed("diverged at step 7")

    monkeypatch.setattr(own_bed, "run_segment", diverging)
    found = train(0, 0, drawn[0], data)
    assert found.error == "TrialFailed: diverged at step 7"
    assert found.metrics == []


def test_the_command_goes_on_where_it_was_interrupted(
    drawn: list[Architecture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[list[tuple[int, int]]] = []

    def two_at_most(
        todo: Sequence[tuple[int, int, Architecture]], folder: Path, processes: int
    ) -> Iterator[Curve]:
        asked.append([(number, seed) for number, seed, _ in todo])
        for number, seed, arch in todo[:2]:
            yield curve(number, seed, arch)
        if len(todo) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(own_bed, "trained", two_at_most)
    path = tmp_path / "table.jsonl"
    given = ["own_bed", "--architectures", "3", "--again", "1", "--out", str(path)]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(KeyboardInterrupt):
        own_bed.main()
    assert len(read(path)[1]) == 2
    own_bed.main()
    assert asked == [[(0, 0), (1, 0), (2, 0), (0, 1)], [(2, 0), (0, 1)]]
    recipe, curves = read(path)
    assert (recipe.space, recipe.steps) == (own_bed.SPACE, list(own_bed.FIDELITY.rungs()))
    assert [(c.number, c.seed) for c in curves] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert "4 trainings, 0 failed, 3 architectures" in capsys.readouterr().out


def test_the_summary_compares_rungs_and_seeds(drawn: list[Architecture]) -> None:
    first = [curve(number, 0, arch) for number, arch in enumerate(drawn[:4])]
    second = [
        replace(each, seed=1, metrics=[*each.metrics[:2], {"loss": float(each.number)}])
        for each in first
    ]
    failed = replace(curve(9, 0, drawn[9]), error="TrialFailed: diverged")
    lines = list(summary([*first, *second, failed]))
    assert lines[0] == "8 trainings, 1 failed, 4 architectures"
    assert lines[1] == "0.02 core-hours, 10.5 s a training at the median"
    lowest = own_bed.FIDELITY.rungs()[0]
    assert lines[2] == f"loss after {lowest} steps against the last: Kendall 1.00"
    assert lines[4] == "last loss of two seeds, 4 architectures: Kendall -1.00"
    assert list(summary([failed])) == ["0 trainings, 1 failed, 0 architectures"]
