"""Hyperparameters are fitted aside, so that whoever asks for proposals seldom waits for them."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor

from nas.search.pareto import Floats
from nas.search.surrogate import Hyperparameters, likeliest, tamed

SIZES = (1, 2, 4, 8, 16, 32, 48)
"""Numbers of results that hyperparameters are chosen by: few fits, and none to many."""
HEAD_START = 16
"""A fit is made use of when its results have grown by a part of their number, one in so many."""
MOST_TUNED = SIZES[-1] + SIZES[-1] // HEAD_START
"""More than so many results make no difference."""
KEPT = 16


class Tuning:
    """The likeliest hyperparameters for sets of results, each fitted in a thread of its own.

    Which set is made use of depends on how many results there are, and not on how long a fit
    takes: where it is not ready it is waited for. So equal results give equal hyperparameters.
    """

    def __init__(self) -> None:
        self._fits: dict[bytes, Future[Hyperparameters]] = {}

    def hyperparameters(self, points: Floats, values: Floats) -> Hyperparameters:
        """For (n,) values at (n, d) points, n >= 1: chosen by some of the first of them."""
        n = len(values)
        begun = max(size for size in SIZES if size <= n)
        used = max(size for size in SIZES if size + size // HEAD_START <= n)
        self._fit(points[:begun], values[:begun])
        return self._fit(points[:used], values[:used]).result()

    def _fit(self, points: Floats, values: Floats) -> Future[Hyperparameters]:
        key = hashlib.sha256(points.tobytes() + values.tobytes()).digest()
        if key not in self._fits:
            thread = ThreadPoolExecutor(1)
            self._fits[key] = thread.submit(likeliest, points, tamed(values))
            thread.shutdown(wait=False)
            for old in list(self._fits)[:-KEPT]:
                del self._fits[old]
        return self._fits[key]
