"""How far a mean can be trusted: one spread pooled over all that were repeated, and its interval.

A member of a front is repeated only a few times, which says little of its own spread. Members are
trained alike, so their deviations from their own means are pooled: k members with n repetitions
each give k (n - 1) degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Of every interval: two-sided, by Student's t."""


@dataclass(frozen=True)
class Spread:
    """A pooled standard deviation and its degrees of freedom."""

    sd: float
    freedom: int

    def half_width(self, repetitions: int, confidence: float = CONFIDENCE) -> float:
        """Half the interval of a mean of so many repetitions; infinite where nothing is known."""
        if self.freedom < 1:
            return math.inf
        return student_t(self.freedom, confidence) * self.sd / math.sqrt(repetitions)


@dataclass(frozen=True)
class Estimate:
    """A mean of n repetitions and its interval, None where nothing tells of the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float], spread: Spread) -> Estimate:
        """The mean of these values under a spread."""
        mean, half = sum(values) / len(values), spread.half_width(len(values))
        known = math.isfinite(half)
        low, high = (mean - half, mean + half) if known else (None, None)
        return cls(mean, low, high, len(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], spread: Spread) -> Estimate:
        """The geometric mean of positive values; the spread is that of their logarithms."""
        logs = cls.of([math.log(value) for value in values], spread)
        low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
        return cls(math.exp(logs.mean), low, high, logs.n)

    @property
    def half_width(self) -> float:
        """Half the interval, infinite where it is not known."""
        return math.inf if self.high is None else self.high - self.mean


def pooled(groups: Iterable[Sequence[float]]) -> Spread:
    """The spread of values around the mean of their own group."""
    squares, freedom = 0.0, 0
    for values in groups:
        if len(values) > 1:
            mean = sum(values) / len(values)
            squares += sum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def pooled_rounds(values: NDArray[np.float64]) -> Spread:
    """The spread of (members, rounds) around the mean of each member and that of each round.

    What a round adds to all of its members falls out: of the difference of two members only what
    is their own counts. Source: the two-way layout without interaction.
    """
    members, rounds = values.shape
    freedom = (members - 1) * (rounds - 1)
    if freedom < 1:
        return Spread(0.0, 0)
    own = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return Spread(float(np.sqrt((own**2).sum() / freedom)), freedom)


@lru_cache(maxsize=256)
def student_t(freedom: int, confidence: float) -> float:
    """The t that a variable of Student's distribution stays within, in both directions.

    Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4, inverted by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        if _within(angle, freedom) < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """The probability of |t| <= √freedom · tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = sine * (cosine if odd else 1.0)
    total = 0.0
    for i in range(3 if odd else 2, freedom + 1, 2):
        total += term
        term *= cosine**2 * (i - 1) / i
    return 2 / math.pi * (angle + total) if odd else total
