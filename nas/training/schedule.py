"""The learning rate over a training: warm-up, then a cosine down to a tenth."""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOOR = 0.1


@dataclass(frozen=True)
class Schedule:
    """A factor for each step of a full training.

    It is a function of the step and of ``max_steps`` only, never of a rung: a trial that stops at a
    rung has seen just what the beginning of a full training sees.

    warmup: the fraction of max_steps over which the factor rises linearly to 1.
    """

    max_steps: int
    warmup: float

    def factor(self, step: int) -> float:
        """What to multiply the rate by at a step, from 0; past max_steps it stays at a tenth."""
        rising = round(self.warmup * self.max_steps)
        if step < rising:
            return (step + 1) / rising
        done = min(1.0, (step - rising) / max(1, self.max_steps - 1 - rising))
        return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2
