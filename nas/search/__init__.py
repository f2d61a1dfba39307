"""Finding the front: Pareto arithmetic, strategies that propose, rungs that promote."""

from __future__ import annotations

import importlib
from typing import Any

from nas.search.errors import NothingFeasible, SpaceExhausted
from nas.search.strategy import Candidate, Strategy

__all__ = ["Candidate", "NothingFeasible", "SpaceExhausted", "Strategy", "create_strategy"]


def __getattr__(name: str) -> Any:
    # by importlib, not by an import statement, so that neither `import nas.search.pareto` nor the
    # import graph that CI checks leads from here to what strategies need (Optuna)
    if name == "create_strategy":
        return importlib.import_module("nas.search.strategies").create_strategy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
