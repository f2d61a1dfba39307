"""Random search: every architecture is a fresh draw from the space."""

from __future__ import annotations

import random
from collections.abc import Iterator

from nas.search.strategy import Proposal, Strategy


class RandomSearch(Strategy):
    """Uniform choices, nothing learned.

    Source: Bergstra & Bengio 2012, JMLR 13:281.
    """

    learns = False

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        while True:
            yield self._space.sample(rng), "random"
