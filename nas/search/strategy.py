"""Ask and tell: what every strategy does the same way. It knows no storage, loop, file or clock."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypeAlias

from nas.search.errors import NothingFeasible, SpaceExhausted
from nas.search.objectives import Bound, Metrics, Objectives
from nas.search.space import Architecture, Space, enumerate_space
from nas.search.standings import Standings

KnownCosts: TypeAlias = Callable[[Architecture], Metrics]
Proposal: TypeAlias = tuple[Architecture, str]
"""An architecture and where it comes from (``random``, ``mutation`` …)."""

DRAWS = 200
"""How many proposals of one ask may be refused before the last resort."""
FEW_DRAWS = 20
"""The same, once more than half of a space that can be listed is known."""
ENUMERABLE = 5_000
"""Up to this size a space is listed to find what is left of it."""


@dataclass(frozen=True)
class Candidate:
    """An architecture to evaluate; ``number`` counts asked and adopted ones from 0."""

    number: int
    architecture: Architecture
    fingerprint: str
    origin: str


class Strategy(ABC):
    """Proposes architectures, each once, and learns from their results.

    What ask n proposes depends on the seed, on n, on the candidates before it and on what was
    told of them: not on when it was told, nor on anything else. So a strategy is rebuilt by
    adopting the earlier candidates in order and telling all results again.

    A subclass yields proposals; those known already, and those that break a constraint on a cost
    known before training, are refused here and the next is drawn. ``exhaustive`` says that the
    proposals of one ask, which then must be finitely many, are all there is.
    """

    exhaustive: ClassVar[bool] = False
    learns: ClassVar[bool] = True
    """Whether results change what it proposes."""

    def __init__(
        self,
        space: Space,
        objectives: Objectives,
        *,
        seed: int = 0,
        known_costs: KnownCosts | None = None,
    ) -> None:
        self._space = space
        self._objectives = objectives
        self._seed = seed
        self._known_costs: KnownCosts = known_costs or (lambda arch: {})
        self._candidates: list[Candidate] = []
        self._numbers: dict[str, int] = {}
        self._costs: list[Metrics] = []
        self._inside: list[Candidate] = []
        self._failed: dict[int, str] = {}
        self._results: dict[float, Standings[int]] = {}
        self._unasked: dict[str, Architecture] | None = None

    def ask(self) -> Candidate:
        """A candidate that was not there before.

        Raises:
            SpaceExhausted: all was asked, or, in a space too large to list, everything drawn in
                a bounded number of attempts was.
            NothingFeasible: no architecture met so far keeps the constraints on known costs.
        """
        rng = random.Random(f"{self._seed}:{len(self._candidates)}")
        refusals = _Refusals()
        for architecture, origin in self._all_proposals(rng, refusals):
            fingerprint = self._space.fingerprint(architecture)
            if fingerprint in self._numbers:
                refusals.repeated += 1
                continue
            costs = self._known_costs(architecture)
            if broken := self._objectives.broken(costs):
                refusals.infeasible(architecture, costs, broken, self._objectives.violation(costs))
                continue
            return self._register(architecture, fingerprint, origin, costs)
        raise self._nothing_left(refusals)

    def tell(self, candidate: Candidate, metrics: Metrics, fidelity: float = 1.0) -> None:
        """Take in what an evaluation measured at a fidelity, the fraction of full training.

        Each rung is told as it finishes; known costs need not be among the metrics. Told again at
        the same fidelity, the later metrics replace the earlier.

        Raises:
            ValueError: a candidate of another strategy, or a fidelity outside (0, 1].
        """
        self._check_known(candidate)
        if not 0 < fidelity <= 1:
            raise ValueError(f"fidelity is a fraction of full training in (0, 1], not {fidelity}")
        if candidate.number in self._failed:
            return  # told late, of a trial that has failed since: failure holds
        standings = self._results.setdefault(fidelity, Standings(self._objectives))
        standings.record(candidate.number, {**self._costs[candidate.number], **metrics})

    def fail(self, candidate: Candidate, reason: str) -> None:
        """Give up a candidate: it is not asked again, and its results no longer count."""
        self._check_known(candidate)
        self._failed[candidate.number] = reason
        for standings in self._results.values():
            standings.remove(candidate.number)

    def adopt(self, architecture: Architecture, origin: str) -> Candidate:
        """Register an architecture that was asked in an earlier life, or is known from elsewhere.

        One that is there already is returned as it is.
        """
        fingerprint = self._space.fingerprint(architecture)
        if fingerprint in self._numbers:
            return self._candidates[self._numbers[fingerprint]]
        return self._register(architecture, fingerprint, origin, self._known_costs(architecture))

    def is_settled(self, tolerance: float) -> bool:
        """Whether nothing is expected to add this share to the hypervolume that there is.

        Never, where a strategy does not estimate what it expects.
        """
        return False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All that were asked or adopted, in order."""
        return tuple(self._candidates)

    @abstractmethod
    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        """Proposals for one ask, best first, endless unless the class is ``exhaustive``.

        Resumed when the one before was refused.
        """

    def _told(self, at_least: int = 1) -> tuple[float, Standings[int]] | None:
        """The highest fidelity with so many results, and those; else that with the most."""
        filled = [(f, s) for f, s in self._results.items() if len(s)]
        enough = [(f, s) for f, s in filled if len(s) >= at_least]
        if enough:
            return max(enough, key=lambda item: item[0])
        return max(filled, key=lambda item: (len(item[1]), item[0]), default=None)

    def _register(
        self, architecture: Architecture, fingerprint: str, origin: str, costs: Metrics
    ) -> Candidate:
        candidate = Candidate(len(self._candidates), architecture, fingerprint, origin)
        self._candidates.append(candidate)
        self._numbers[fingerprint] = candidate.number
        self._costs.append(costs)
        # an adopted one may come from another version of the space: not to breed from
        if self._space.contains(architecture):
            self._inside.append(candidate)
        return candidate

    def _check_known(self, candidate: Candidate) -> None:
        if self._numbers.get(candidate.fingerprint) != candidate.number:
            raise ValueError(f"candidate {candidate.number} was neither asked nor adopted here")

    def _all_proposals(self, rng: random.Random, refusals: _Refusals) -> Iterator[Proposal]:
        if self.exhaustive:
            return self._proposals(rng)
        scarce = self._size <= ENUMERABLE and 2 * len(self._inside) > self._size
        drawn = itertools.islice(self._proposals(rng), FEW_DRAWS if scarce else DRAWS)
        return itertools.chain(drawn, self._last_resort(rng, refusals))

    def _last_resort(self, rng: random.Random, refusals: _Refusals) -> Iterator[Proposal]:
        """What is left: listed where the space is small, else looked for by mutation."""
        size = self._size
        if len(self._inside) >= size:
            return
        if size <= ENUMERABLE:
            if self._unasked is None:
                self._unasked = enumerate_space(self._space)
            left = {f: a for f, a in self._unasked.items() if f not in self._numbers}
            complete = len(left) + len(self._inside) >= size
            self._unasked = left
            yield from ((a, "random") for a in rng.sample(list(left.values()), len(left)))
            if complete:
                return
        for attempt in range(DRAWS):
            # towards the constraints where they are what refuses, and away from what is known
            if refusals.closest is not None and (attempt % 2 or not self._inside):
                start = refusals.closest
            elif self._inside:
                start = rng.choice(self._inside).architecture
            else:
                start = self._space.sample(rng)
            for _ in range(rng.randint(1, 3)):
                start = self._space.mutate(start, rng)
            yield start, "mutation"

    @cached_property
    def _size(self) -> int:
        return self._space.size()

    def _nothing_left(self, refusals: _Refusals) -> SpaceExhausted:
        feasible = any(not self._objectives.broken(costs) for costs in self._costs)
        if refusals.broken and not feasible:
            bound = refusals.broken.most_common(1)[0][0]
            return NothingFeasible(str(bound), refusals.nearest[bound], refusals.looked_at)
        return SpaceExhausted(
            f"nothing new after {len(self._candidates)} candidates: of {refusals.looked_at} more, "
            f"{refusals.repeated} were there already and the rest break a constraint"
        )


@dataclass
class _Refusals:
    """What was drawn in vain in one ask."""

    repeated: int = 0
    closest: Architecture | None = None
    violation: float = math.inf
    broken: Counter[Bound] = field(default_factory=Counter)
    nearest: dict[Bound, float] = field(default_factory=dict)
    count: int = 0

    @property
    def looked_at(self) -> int:
        return self.repeated + self.count

    def infeasible(
        self,
        architecture: Architecture,
        costs: Mapping[str, float],
        broken: list[Bound],
        violation: float,
    ) -> None:
        self.count += 1
        if violation < self.violation:
            self.closest, self.violation = architecture, violation
        for bound in broken:
            self.broken[bound] += 1
            value = costs[bound.metric]
            nearest = self.nearest.setdefault(bound, value)
            self.nearest[bound] = min(value, nearest, key=bound.violation)
