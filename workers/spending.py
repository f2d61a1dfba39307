"""What a search has spent, beside what it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.billing import Rates, Work
from nas.schemas import Budget


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
    def asking_ended(self) -> bool:
        """Whether no new trial may begin."""
        trials = self.budget.trials
        return (trials is not None and self.asked >= trials) or self.ended

    @property
    def ended(self) -> bool:
        """Whether a bound has been met after which no segment starts, promotions included."""
        spent = (
            (self.budget.wall_seconds, self.elapsed()),
            (self.budget.full_trainings, self.steps / self.full_steps),
            (self.budget.energy_kwh, self.rates.kwh(self.work)),
        )
        return any(bound is not None and value >= bound for bound, value in spent)
