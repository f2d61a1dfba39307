"""Why a strategy has nothing more to propose."""

from __future__ import annotations

from nas.errors import NasError


class SpaceExhausted(NasError):
    """Everything that may be proposed has been; what was asked before can still be told."""


class NothingFeasible(SpaceExhausted):
    """Every architecture looked at breaks a constraint on a cost known before training.

    constraint: the text of the bound most often broken.
    closest: the value of its metric nearest to the bound (the least seen, for an upper bound).
    """

    def __init__(self, constraint: str, closest: float, looked_at: int) -> None:
        super().__init__(
            f"none of {looked_at} architectures keeps {constraint}; the closest has {closest:g}"
        )
        self.constraint = constraint
        self.closest = closest
