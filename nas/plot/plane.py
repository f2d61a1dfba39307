"""Which metrics a picture shows where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.catalogue.metrics import METRICS

if TYPE_CHECKING:
    from nas.schemas import Trial


@dataclass(frozen=True)
class Plane:
    """x is the first cost among the objectives, y the first quality, size what comes next."""

    x: str
    y: str
    size: str | None

    @classmethod
    def of(cls, objectives: Sequence[str]) -> Plane:
        """The plane for these objectives; one alone is set against parameters or loss."""
        costs = [o for o in objectives if o in METRICS and METRICS[o].cost]
        x = (costs or list(objectives[1:]) or ["parameters"])[0]
        rest = [o for o in objectives if o != x]
        y = next((o for o in rest if o not in costs), rest[0] if rest else "loss")
        return cls(x, y, next((o for o in rest if o != y), None))

    @property
    def metrics(self) -> list[str]:
        """All that it shows, the quality first."""
        return [name for name in (self.y, self.x, self.size) if name]

    def shows(self, trial: Trial) -> bool:
        """Whether a trial has a place in this plane."""
        return self.x in trial.metrics and self.y in trial.metrics

    def at(self, trial: Trial) -> tuple[float, float]:
        """Where a trial is."""
        return trial.metrics[self.x], trial.metrics[self.y]

    def points(self, trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        """Where trials are: all x, all y."""
        return [t.metrics[self.x] for t in trials], [t.metrics[self.y] for t in trials]

    def skyline(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that no other beats in x and y, from the best x to the best y."""
        sign_x, sign_y = (-1.0 if maximised(name) else 1.0 for name in (self.x, self.y))
        best: list[Trial] = []
        lowest = float("inf")
        placed = [(sign_x * x, sign_y * y, i) for i, (x, y) in enumerate(map(self.at, trials))]
        for _, y, i in sorted(placed):
            if y < lowest:
                best.append(trials[i])
                lowest = y
        return best


def maximised(metric: str) -> bool:
    """Whether more of it is better."""
    return metric in METRICS and METRICS[metric].direction == "maximize"


def logarithmic(metric: str) -> bool:
    """Whether its ratios count, not its differences."""
    return metric in METRICS and METRICS[metric].scale == "log"
