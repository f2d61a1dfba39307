"""Coarse to fine, with fewer trials than chance needs, to an end when nothing is to be gained."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search import Strategy, create_strategy, tuning
from nas.search.pareto import hypervolume
from nas.search.strategies import pareto
from nas.search.surrogate import Hyperparameters
from search_spaces import Architecture, load_space

SPACE = load_space("efficient-lm")


def parameters(arch: Architecture) -> float:
    return 10 ** (SPACE.describe(arch)["log_parameters"] / np.log(10))


def loss(arch: Architecture) -> float:
    """Size helps, and each mechanism by its place: nothing that a model could not learn."""
    found = SPACE.describe(arch)
    early, late = found["attention.longformer.quarter_1"], found["attention.full.quarter_4"]
    return float(5 - 0.25 * found["log_parameters"] - 0.3 * late - 0.2 * early)


def searched(name: str, seed: int, trials: int) -> tuple[float, list[Architecture]]:
    """Hypervolume after so many trials, and what was tried."""
    strategy = create_strategy(
        name,
        space=SPACE,
        objectives=["loss", "parameters"],
        seed=seed,
        known_costs=lambda arch: {"parameters": parameters(arch)},
    )
    for _ in range(trials):
        candidate = strategy.ask()
        strategy.tell(candidate, {"loss": loss(candidate.architecture)})
    tried = [c.architecture for c in strategy.candidates]
    rows = np.array([(loss(a), np.log10(parameters(a))) for a in tried])
    return hypervolume(rows, [4.0, 6.0]), tried


def test_it_starts_with_the_cheapest_and_the_dearest_homogeneous_architecture() -> None:
    _, tried = searched("pareto", seed=0, trials=6)
    assert all(arch.homogeneous for arch in tried)
    sizes = [parameters(arch) for arch in tried]
    assert sizes[0] == min(sizes)
    assert sizes[1] == max(sizes)
    assert sizes[1] > 20 * sizes[0]


def test_it_gets_further_than_chance_in_as_many_trials() -> None:
    here, there = (
        [searched(name, seed, trials=30)[0] for seed in range(3)] for name in ("pareto", "random")
    )
    assert np.mean(here) > np.mean(there) + 0.1


def test_a_level_that_promises_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "SHARE", 1.0)  # only the most promising level will do
    _, tried = searched("pareto", seed=0, trials=30)
    assert not all(arch.homogeneous for arch in tried[10:])
    monkeypatch.setattr(pareto, "SHARE", 0.0)  # the coarsest always does
    monkeypatch.setattr(pareto, "LEVELS", (1, 1, None))
    _, tried = searched("pareto", seed=0, trials=30)
    assert sum(arch.homogeneous for arch in tried) > 24, "but for exploration"


def known_space(seed: int = 0, **options: object) -> Strategy:
    """A search of a space whose losses are told at once."""
    return create_strategy(
        "pareto",
        space=SPACE,
        objectives=["loss", "parameters"],
        seed=seed,
        known_costs=lambda arch: {"parameters": parameters(arch)},
        **options,
    )


def go_on(strategy: Strategy, trials: int) -> None:
    for _ in range(trials):
        candidate = strategy.ask()
        strategy.tell(candidate, {"loss": loss(candidate.architecture)})


def test_a_rebuilt_search_goes_on_alike_however_its_pool_has_come_about() -> None:
    original = known_space()
    go_on(original, 40)
    rows = original.candidates
    go_on(original, 25)
    rebuilt = known_space()
    for row in rows:
        rebuilt.tell(rebuilt.adopt(row.architecture, row.origin), {"loss": loss(row.architecture)})
    go_on(rebuilt, 25)
    assert rebuilt.candidates == original.candidates


def test_it_settles_when_little_is_left_to_gain_and_sooner_where_less_is_asked() -> None:
    strategy = known_space()
    settled: dict[float, int] = {}
    for trial in range(40):
        for tolerance in (0.1, 0.03):
            if tolerance not in settled and strategy.is_settled(tolerance):
                settled[tolerance] = trial
        go_on(strategy, 1)
    assert 6 < settled[0.1] < settled[0.03]
    assert not strategy.is_settled(1e-9)


def test_whether_it_has_settled_is_seen_from_the_results_alone() -> None:
    strategy = known_space()
    answers = []
    for _ in range(4):
        go_on(strategy, 7)
        answers.append(strategy.is_settled(0.05))
        rebuilt = known_space()
        for row in strategy.candidates:
            told = {"loss": loss(row.architecture)}
            rebuilt.tell(rebuilt.adopt(row.architecture, row.origin), told)
        assert rebuilt.is_settled(0.05) is answers[-1]
    assert set(answers) == {False, True}


def test_asking_whether_it_has_settled_changes_nothing() -> None:
    asked, left_alone = known_space(), known_space()
    for _ in range(25):
        asked.is_settled(0.01)
        go_on(asked, 1)
        go_on(left_alone, 1)
    assert asked.candidates == left_alone.candidates


def test_it_has_settled_only_where_it_would_have_without_the_latest_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy = known_space()
    first: dict[int, int] = {}
    for trial in range(40):
        for patience in (1, 3):
            monkeypatch.setattr(pareto, "PATIENCE", patience)
            if strategy.is_settled(0.02):
                first.setdefault(patience, trial)
        if len(first) == 2:
            break
        go_on(strategy, 1)
    assert first[1] < first[3]


def test_a_hard_fit_is_not_made_anew_for_each_result_at_a_rung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits: list[int] = []

    def counted(points: np.ndarray, values: np.ndarray) -> Hyperparameters:
        fits.append(len(values))
        return Hyperparameters(np.ones(points.shape[1]))

    monkeypatch.setattr(tuning, "likeliest", counted)
    strategy = known_space()
    for _ in range(70):
        candidate = strategy.ask()
        final = loss(candidate.architecture)
        strategy.tell(candidate, {"loss": final + 1}, fidelity=1 / 9)
        if candidate.number % 3 == 0:
            strategy.tell(candidate, {"loss": final}, fidelity=1.0)
    assert len(fits) <= 7


def test_of_a_large_front_each_member_has_fewer_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    for neighbours in (1000, 8):
        monkeypatch.setattr(pareto, "NEIGHBOURS", neighbours)
        strategy = known_space(pool_size=16)
        go_on(strategy, 20)
        beliefs = strategy._believed()
        assert len(beliefs.members) > 4
        sizes.append(sum(map(len, strategy._levels(beliefs))))
    assert sizes[1] < 4 * (16 + max(8, 20)) < sizes[0]
