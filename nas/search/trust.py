"""How far two orders of the same things agree: rank correlations, and what size alone explains.

Values are (n,); what is not finite in either is left out with its partner.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEW = 10
"""Of fewer pairs a correlation says next to nothing."""
LEAST = 3
"""Of fewer still it is not even computed."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of n pairs; None where they are not defined."""

    n: int
    kendall: float | None
    spearman: float | None

    @property
    def too_few(self) -> bool:
        """Whether there are too few pairs to go by it."""
        return self.n < FEW


def agreement(first: ArrayLike, second: ArrayLike) -> Agreement:
    """Kendall's tau-b and Spearman's rho, None of fewer than three pairs or all ties."""
    x, y = _pairs(first, second)
    if len(x) < LEAST:
        return Agreement(len(x), None, None)
    return Agreement(len(x), kendall(x, y), spearman(x, y))


def agreement_beyond(first: ArrayLike, second: ArrayLike, factor: ArrayLike) -> Agreement:
    """The same of what is left of both when a linear fit on ``factor`` is taken out."""
    x, y, z = (np.asarray(values, dtype=np.float64) for values in (first, second, factor))
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    # of three points a line leaves too little
    if known.sum() <= LEAST:
        return Agreement(int(known.sum()), None, None)
    return agreement(residuals(x[known], z[known]), residuals(y[known], z[known]))


def kendall(x: Floats, y: Floats) -> float | None:
    """Tau-b of finite values; None where one of them is all ties.

    Source: Kendall 1945, doi:10.2307/2332303; discordant pairs counted in one pass over the order.
    """
    pairs = len(x) * (len(x) - 1) // 2
    untied_x, untied_y = pairs - _ties(x), pairs - _ties(y)
    if not untied_x or not untied_y:
        return None
    discordant, seen = 0, list[float]()
    for value in y[np.lexsort((y, x))].tolist():
        discordant += len(seen) - bisect_right(seen, value)
        insort(seen, value)
    both = _ties(np.stack([x, y], axis=1))
    concordant = untied_x + untied_y - pairs + both - discordant
    return (concordant - discordant) / math.sqrt(untied_x * untied_y)


def spearman(x: Floats, y: Floats) -> float | None:
    """Rho of finite values, tied ones sharing their mean rank; None where one is all ties."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (x, y)]
    scale = math.sqrt(float((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / scale if scale else None


def residuals(values: Floats, factor: Floats) -> Floats:
    """What a least squares line on the factor leaves of the values."""
    centred, spread = values - values.mean(), factor - factor.mean()
    power = float((spread**2).sum())
    slope = float((spread * centred).sum()) / power if power else 0.0
    left = centred - slope * spread
    # rounding has an order, too, but it means nothing
    rounding = 1e-12 * float(np.abs(values).max())
    return np.where(np.abs(left) <= rounding, 0.0, left)


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _ties(values: NDArray[np.float64]) -> int:
    """Pairs of equal values (rows)."""
    counts = np.unique(values, axis=0, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _ranks(values: Floats) -> Floats:
    """From 0, tied values at the mean of their places."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    places = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray(places[where])
