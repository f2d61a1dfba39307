"""What every strategy of the catalogue must do, on a table, a tiny and a large space."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from nas.catalogue.strategies import STRATEGIES
from nas.schemas import Constraint
from nas.search import Candidate, NothingFeasible, SpaceExhausted, Strategy, create_strategy
from nas.search.space import Space
from nas.search.strategies import strategy_class
from search_spaces import load_space
from search_spaces.errors import InvalidArchitecture, InvalidInput
from search_spaces.values import Domain, Scalar


class Table:
    """A table of results as a space: its architectures are names and mean nothing."""

    def __init__(self, rows: int) -> None:
        self.names = tuple(f"row {i}" for i in range(rows))

    def sample(self, rng: random.Random, segments: int | None = None) -> str:
        return rng.choice(list(self.homogeneous()) if segments == 1 else self.names)

    def mutate(self, arch: str, rng: random.Random, segments: int | None = None) -> str:
        return self.names[(self.names.index(arch) + rng.choice((-1, 1))) % len(self.names)]

    def crossover(self, a: str, b: str, rng: random.Random) -> str:
        return self.names[(self.names.index(a) + self.names.index(b)) // 2]

    def contains(self, arch: str) -> bool:
        return arch in self.names

    def fingerprint(self, arch: str) -> str:
        return f"of {arch}"

    def describe(self, arch: str) -> dict[str, float]:
        return {}

    def homogeneous(self) -> Iterator[str]:
        return iter(self.names[::5])

    def domains(self) -> dict[str, Domain]:
        return {"row": Domain(self.names)}

    def decisions(self, arch: str) -> dict[str, Scalar]:
        return {"row": arch}

    def assemble(self, decisions: Mapping[str, Scalar]) -> str:
        if decisions.get("row") not in self.names:
            raise InvalidArchitecture([])
        return str(decisions["row"])

    def size(self) -> int:
        return len(self.names)


SPACES: dict[str, Space] = {
    "table": Table(400),
    "tiny": load_space("tiny"),
    "efficient-lm": load_space("efficient-lm"),
}
FIDELITIES = (1 / 9, 1 / 3, 1.0)
Event = tuple[str, int, Mapping[str, float], float]

every_strategy = pytest.mark.parametrize("name", STRATEGIES)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def noise(space: Space, arch: Any, salt: str) -> float:
    return random.Random(f"{salt}:{space.fingerprint(arch)}").random()


def costs(space: Space) -> Any:
    return lambda arch: {
        "parameters": 1000 + 9000 * noise(space, arch, "parameters"),
        "flops": 1e6 * (1 + noise(space, arch, "flops")),
    }


def create(name: str, space: Space, **kwargs: Any) -> Strategy:
    kwargs = {"objectives": ["loss", "parameters"], "known_costs": costs(space)} | kwargs
    strategy: Strategy = create_strategy(name, space=space, **kwargs)
    return strategy


def evaluate(space: Space, candidate: Candidate, fidelity: float = 1.0) -> dict[str, float]:
    loss = 1 + noise(space, candidate.architecture, "loss") / fidelity
    return {"loss": loss, "accuracy": 1 / loss, "expected_depth": 2 * loss}


def events_after(space: Space, candidates: tuple[Candidate, ...]) -> Iterator[Event]:
    """What becomes known when so many were asked: results out of order, at all rungs, failures."""
    count = len(candidates)
    plan = [(1, FIDELITIES[0], 1), (4, FIDELITIES[1], 3), (6, FIDELITIES[2], 5)]
    for lag, fidelity, every in plan:
        number = count - 1 - lag
        if number >= 0 and number % every == 0:
            yield "tell", number, evaluate(space, candidates[number], fidelity), fidelity
    if count % 7 == 6:
        yield "fail", count - 3, {}, 0.0


def happen(strategy: Strategy, events: list[Event]) -> None:
    for kind, number, metrics, fidelity in events:
        if kind == "tell":
            strategy.tell(strategy.candidates[number], metrics, fidelity)
        else:
            strategy.fail(strategy.candidates[number], "diverged")


def live(strategy: Strategy, space: Space, until: int) -> list[Event]:
    """Ask up to so many candidates, telling in between; what was told."""
    told: list[Event] = []
    while len(strategy.candidates) < until:
        strategy.ask()
        news = list(events_after(space, strategy.candidates))
        happen(strategy, news)
        told += news
    return told


@every_strategy
def test_the_catalogue_and_the_implementations_share_their_names(name: str) -> None:
    assert strategy_class(name).__name__ == STRATEGIES[name].__name__
    assert "Source" in (strategy_class(name).__doc__ or "") or name == "homogeneous"


@every_space
@every_strategy
def test_candidates_are_new_numbered_and_of_the_space(name: str, space: Space) -> None:
    strategy = create(name, space)
    live(strategy, space, 45)
    candidates = strategy.candidates
    assert [c.number for c in candidates] == list(range(45))
    assert len({c.fingerprint for c in candidates}) == 45
    assert all(c.fingerprint == space.fingerprint(c.architecture) for c in candidates)
    assert all(space.contains(c.architecture) for c in candidates)
    assert all(c.origin for c in candidates)


@every_space
@every_strategy
def test_the_seed_decides(name: str, space: Space) -> None:
    strategies = [create(name, space, seed=seed) for seed in (3, 3, 4)]
    for strategy in strategies:
        live(strategy, space, 30)
    first, again, other = ([c.fingerprint for c in s.candidates] for s in strategies)
    assert first == again
    assert first != other


@pytest.mark.parametrize("order", ["as told", "by trial"])
@every_space
@every_strategy
def test_rebuilt_from_rows_it_goes_on_as_if_nothing_had_happened(
    name: str, space: Space, order: str
) -> None:
    options = {"tpe": {"startup_trials": 4}}.get(name, {})
    original = create(name, space, seed=1, **options)
    told = live(original, space, 20)
    rows = original.candidates
    live(original, space, 40)

    rebuilt = create(name, space, seed=1, **options)
    for row in rows:
        assert rebuilt.adopt(row.architecture, row.origin) == row
    happen(rebuilt, told if order == "as told" else sorted(told, key=lambda event: event[1]))
    live(rebuilt, space, 40)
    assert rebuilt.candidates == original.candidates


@every_space
@every_strategy
def test_what_is_adopted_is_not_asked_again(name: str, space: Space) -> None:
    strategy = create(name, space)
    ahead = create(name, space)
    known = [ahead.ask().architecture for _ in range(10)]
    adopted = [strategy.adopt(architecture, "reused") for architecture in known]
    assert strategy.adopt(known[3], "reused") is adopted[3]
    strategy.tell(adopted[0], evaluate(space, adopted[0]))
    asked = [strategy.ask() for _ in range(10)]
    assert not {c.fingerprint for c in asked} & {c.fingerprint for c in adopted}


@every_space
@every_strategy
def test_constraints_on_known_costs_are_never_broken(name: str, space: Space) -> None:
    constraints = [Constraint(metric="parameters", max=4000), {"metric": "flops", "min": 1.3e6}]
    strategy = create(name, space, constraints=constraints)
    # the table has 80 homogeneous rows and tiny 64, of which about one in four may be asked
    live(strategy, space, 8)
    for candidate in strategy.candidates:
        known = costs(space)(candidate.architecture)
        assert known["parameters"] <= 4000
        assert known["flops"] >= 1.3e6


@every_space
@every_strategy
def test_a_constraint_that_nothing_keeps_is_named(name: str, space: Space) -> None:
    strategy = create(name, space, constraints=[Constraint(metric="parameters", max=900)])
    with pytest.raises(NothingFeasible, match="parameters <= 900") as caught:
        strategy.ask()
    assert 1000 <= caught.value.closest < 2000


@every_strategy
@pytest.mark.parametrize("bounded", [False, True])
def test_a_finite_space_is_asked_completely(name: str, bounded: bool) -> None:
    space = Table(60)
    constraints = [Constraint(metric="parameters", max=5000)] if bounded else []
    strategy = create(name, space, constraints=constraints)
    everything = list(space.homogeneous() if name == "homogeneous" else space.names)
    allowed = [a for a in everything if not bounded or costs(space)(a)["parameters"] <= 5000]
    for _ in allowed:
        candidate = strategy.ask()
        strategy.tell(candidate, evaluate(space, candidate))
    assert {c.architecture for c in strategy.candidates} == set(allowed)
    for _ in range(2):
        with pytest.raises(SpaceExhausted):
            strategy.ask()


@every_strategy
def test_a_small_space_of_transformers_is_asked_completely(name: str) -> None:
    space = load_space(
        {
            "causal": False,
            "width": [8, 12],
            "depth": [1, 2],
            "heads": [2, 3],
            "position": ["sinusoidal", "rotary"],
            "attention": [
                "linear",
                {"type": "longformer", "window": [4, 8], "globals": 1, "queries_per_key": 1},
            ],
            "feedforward": {"type": "dense", "ratio": 1},
        }
    )
    expected = len(list(space.homogeneous())) if name == "homogeneous" else space.size()
    assert 10 < expected < 200
    strategy = create(name, space)
    for _ in range(expected):
        strategy.tell(strategy.ask(), {"loss": 1.0})
    with pytest.raises(SpaceExhausted):
        strategy.ask()


@every_space
@every_strategy
def test_failures_are_survived(name: str, space: Space) -> None:
    strategy = create(name, space)
    for _ in range(30):
        strategy.fail(strategy.ask(), "out of memory")
    candidate = strategy.ask()
    strategy.tell(candidate, {"loss": math.nan})
    strategy.fail(candidate, "diverged")
    strategy.tell(candidate, {"loss": 0.0})  # late: it stays failed
    assert strategy.ask().number == 31


@pytest.mark.parametrize(
    "objectives",
    [
        ["loss"],
        ["accuracy", "parameters"],
        ["loss", "parameters", "flops"],
        ["loss", "accuracy", "parameters", "flops"],
        ["loss", "parameters", "flops", "expected_depth", "not in the catalogue"],
    ],
    ids=len,
)
@every_strategy
def test_one_to_five_objectives(name: str, objectives: list[str]) -> None:
    space = SPACES["efficient-lm"]
    strategy = create(name, space, objectives=objectives)
    for i in range(40):
        candidate = strategy.ask()
        metrics = evaluate(space, candidate) | {"not in the catalogue": float(i)}
        # once in a while one is not measured
        strategy.tell(candidate, {k: v for k, v in metrics.items() if i % 9 or k != "loss"})
    assert len(strategy.candidates) == 40


@every_strategy
def test_a_measured_constraint_is_tolerated(name: str) -> None:
    space = SPACES["efficient-lm"]
    strategy = create(name, space, constraints=[Constraint(metric="accuracy", min=0.9)])
    live(strategy, space, 40)
    assert len(strategy.candidates) == 40


@every_strategy
def test_only_what_learns_proposes_otherwise_when_it_is_told(name: str) -> None:
    space = SPACES["efficient-lm"]
    told, left_alone = create(name, space), create(name, space)
    for _ in range(40):
        candidate = told.ask()
        told.tell(candidate, evaluate(space, candidate))
        left_alone.ask()
    assert (told.candidates != left_alone.candidates) is told.learns


@every_strategy
def test_only_what_estimates_improvements_can_tell_that_none_is_left(name: str) -> None:
    space = Table(60)
    strategy = create(name, space)
    assert not strategy.is_settled(0.5)
    for _ in list(space.homogeneous()) if name == "homogeneous" else space.names:
        candidate = strategy.ask()
        strategy.tell(candidate, evaluate(space, candidate))
    assert strategy.is_settled(0.01) is STRATEGIES[name].estimates_improvement


@every_strategy
def test_only_its_own_candidates_are_told_of(name: str) -> None:
    space = SPACES["tiny"]
    strategy = create(name, space)
    candidate = strategy.ask()
    with pytest.raises(ValueError, match="neither asked nor adopted"):
        strategy.tell(Candidate(5, candidate.architecture, "f", "random"), {"loss": 1.0})
    for fidelity in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match="fidelity"):
            strategy.tell(candidate, {"loss": 1.0}, fidelity=fidelity)


@every_strategy
def test_unknown_options_and_objectives_are_refused_by_name(name: str) -> None:
    space = SPACES["tiny"]
    with pytest.raises(InvalidInput) as caught:
        create(name, space, populaton_size=10)
    (problem,) = caught.value.problems
    assert problem.pointer == "/strategy/populaton_size"
    assert problem.allowed == tuple(f for f in STRATEGIES[name].model_fields if f != "name")
    for objectives in ([], ["loss", "loss"]):
        with pytest.raises(InvalidInput, match="objective"):
            create(name, space, objectives=objectives)
    for constraint in ({"metric": "loss"}, {"max": 1}, {"metric": "loss", "min": 2, "max": 1}):
        with pytest.raises(InvalidInput, match="/constraints/0"):
            create(name, space, constraints=[constraint])


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        create("nsga3", SPACES["tiny"])
    assert caught.value.problems[0].allowed == tuple(STRATEGIES)
