"""What a search has spent, beside what it may."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nas.billing import Rates, Work
from nas.schemas import Budget
from nas.states import EndedBy


@dataclass
class Spending:
    """Trials, steps and energy so far.

    full_steps: those of a full training.  elapsed: the job's running seconds.  asked: trials that
    were not reused.
    """

    budget: Budget
    full_steps: int
    rates: Rates
    elapsed: Callable[[], float]
    work: Work
    asked: int = 0
    steps: int = 0

    @property
    def asking_ended(self) -> EndedBy | None:
        """The bound for which no new trial may begin, if it has been met."""
        trials = self.budget.trials
        met = trials is not None and self.asked >= trials
        return EndedBy.TRIALS if met else self.ended

    @property
    def ended(self) -> EndedBy | None:
        """The bound after which no segment starts, promotions included, if it has been met."""
        spent = {
            EndedBy.WALL_SECONDS: self.elapsed(),
            EndedBy.FULL_TRAININGS: self.steps / self.full_steps,
            EndedBy.ENERGY_KWH: self.rates.kwh(self.work),
        }
        bounds = self.budget.model_dump()
        met = (name for name, value in spent.items() if (bounds[name] or math.inf) <= value)
        return next(met, None)
