"""Strategies by the name that the catalogue gives them, one file each."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from nas.catalogue.strategies import STRATEGIES, StrategyConfig
from nas.search.objectives import Constraint, Objectives
from nas.search.space import Space
from nas.search.strategy import KnownCosts, Strategy
from search_spaces.errors import InvalidInput, Problem, pointer


def create_strategy(
    name: str,
    *,
    space: Space,
    objectives: Sequence[str],
    seed: int = 0,
    known_costs: KnownCosts | None = None,
    constraints: Iterable[Constraint | Mapping[str, Any]] = (),
    **options: Any,
) -> Strategy:
    """A strategy of the catalogue, ready to be asked.

    known_costs gives the metrics of an architecture that are exact before training; candidates
    that break a constraint on one of them are never proposed. An objective that is no metric of
    the catalogue is minimised. ``options`` are the settings of the strategy's config.

    Raises:
        InvalidInput: an unknown name or option, or objectives and constraints that cannot be used.
    """
    config = _config(name, options)
    implementation = strategy_class(name)
    return implementation(
        space,
        Objectives.of(objectives, constraints),
        seed=seed,
        known_costs=known_costs,
        **config.model_dump(exclude={"name"}),
    )


def strategy_class(name: str) -> type[Strategy]:
    """The class that carries out a strategy of the catalogue."""
    # by name, so that only the strategy in use imports what it needs (Optuna takes its time)
    module = importlib.import_module(f"{__name__}.{name}")
    found: type[Strategy] = getattr(module, STRATEGIES[name].__name__)
    return found


def _config(name: str, options: Mapping[str, Any]) -> StrategyConfig:
    if name not in STRATEGIES:
        raise InvalidInput(
            [Problem("/strategy/name", f"there is no strategy {name!r}", tuple(STRATEGIES))]
        )
    allowed = tuple(field for field in STRATEGIES[name].model_fields if field != "name")
    try:
        return STRATEGIES[name](**options)
    except ValidationError as error:
        raise InvalidInput(
            [
                Problem(
                    "/strategy" + pointer(e["loc"]),
                    e["msg"],
                    allowed if e["type"] == "extra_forbidden" else (),
                )
                for e in error.errors()
            ]
        ) from error
