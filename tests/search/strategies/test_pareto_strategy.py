"""Coarse to fine, and with fewer trials than chance needs."""

from __future__ import annotations

import numpy as np

from nas.search import create_strategy
from nas.search.pareto import hypervolume
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
