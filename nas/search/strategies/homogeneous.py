"""The grid of homogeneous architectures: the way in, and the baseline beside every front."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from nas.search.space import Architecture
from nas.search.strategy import DRAWS, Proposal, Strategy

LISTED = 5_000
"""Up to this size the grid is listed and shuffled."""


class Homogeneous(Strategy):
    """The same block in every layer, in random order, until there are no more.

    A grid too large to list is drawn from instead; when all draws of an ask are refused, the
    first of the list that was not there yet follow.
    """

    exhaustive = True
    learns = False
    _grid: list[Architecture] | None = None
    _behind = 0

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        if self._grid is None:
            self._grid = list(itertools.islice(self._space.homogeneous(), LISTED + 1))
            # not by the rng of this ask: the order must not depend on which ask came first
            random.Random(f"{self._seed}:grid").shuffle(self._grid)
        if len(self._grid) > LISTED:
            for _ in range(DRAWS):
                yield self._space.sample(rng, segments=1), "homogeneous"
        while self._behind < len(self._grid):
            self._behind += 1  # taken or refused, it need never be proposed again
            yield self._grid[self._behind - 1], "homogeneous"
