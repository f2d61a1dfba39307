"""Architectures that were looked at, with all that is known of them before training, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nas.search.objectives import Metrics, Objectives
from nas.search.pareto import Floats, Indices
from nas.search.space import Architecture, Space
from nas.search.strategy import KnownCosts


class Pool:
    """Each architecture once, at a place that it keeps; the arrays grow as more are added.

    Letters: P architectures, m objectives, d descriptors.
    """

    def __init__(self, space: Space, objectives: Objectives, known_costs: KnownCosts) -> None:
        self._space = space
        self._objectives = objectives
        self._known_costs = known_costs
        self._places: dict[str, int] = {}
        self._architectures: list[Architecture] = []
        self._names: list[str] | None = None
        self._rows = np.zeros((0, len(objectives.names)))
        self._features = np.zeros((0, 0))
        self._described = np.zeros(0, dtype=bool)
        self._usable = np.zeros(0, dtype=bool)
        self._varied = np.zeros(0, dtype=np.intp)
        self._centre = self._scale = np.zeros(0)
        self._points = np.zeros((0, 0))
        self.standardised = False

    def __len__(self) -> int:
        return len(self._architectures)

    def __getitem__(self, place: int) -> Architecture:
        return self._architectures[place]

    @property
    def rows(self) -> Floats:
        """Objectives (P, m), less is better, NaN where not known before training."""
        return self._rows[: len(self)]

    @property
    def features(self) -> Floats:
        """Descriptors (P, d), NaN for what is not of the space."""
        return self._features[: len(self)]

    @property
    def described(self) -> NDArray[np.bool_]:
        """Whether all descriptors are known (P,)."""
        return self._described[: len(self)]

    @property
    def points(self) -> Floats:
        """Descriptors (P, d'), those that vary, in the unit that ``standardise`` has fixed."""
        return self._points[: len(self)]

    def standardise(self, places: Indices) -> None:
        """Let each descriptor have a mean of 0 and a deviation of 1 over these, from now on.

        Those that do not vary among them are left out.
        """
        features = self.features[places]
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        self._varied = np.flatnonzero(deviation > 0)
        self._centre, self._scale = mean[self._varied], deviation[self._varied]
        self._points = self._standardised(self._features)
        self.standardised = True

    def open(self, places: Indices) -> Indices:
        """Those that were not asked yet and break no constraint on a known cost."""
        return places[self._usable[places]]

    def ask(self, architecture: Architecture, costs: Metrics, inside: bool) -> int:
        """The place of an architecture that is asked now; one from outside is not described."""
        fingerprint = self._space.fingerprint(architecture)
        if fingerprint not in self._places:
            self._add(architecture, fingerprint, costs, inside)
        place = self._places[fingerprint]
        self._usable[place] = False
        return place

    def look_at(self, architectures: Iterable[Architecture]) -> Indices:
        """The places of architectures of the space, each once."""
        places: dict[int, None] = {}
        for architecture in architectures:
            fingerprint = self._space.fingerprint(architecture)
            if fingerprint not in self._places:
                self._add(architecture, fingerprint, self._known_costs(architecture), True)
            places[self._places[fingerprint]] = None
        return np.array(list(places), dtype=np.intp)

    def _add(
        self, architecture: Architecture, fingerprint: str, costs: Metrics, inside: bool
    ) -> None:
        place = self._places[fingerprint] = len(self)
        self._architectures.append(architecture)
        described = self._space.describe(architecture) if inside else {}
        if self._names is None and inside:
            self._names = list(described)
            self._features = np.full((len(self._rows), len(self._names)), math.nan)
        if place == len(self._rows):
            self._grow(max(1024, 2 * place))
        self._rows[place] = self._objectives.row(costs)
        self._usable[place] = inside and not self._objectives.broken(costs)
        if inside and self._names:
            self._features[place] = [described.get(name, 0.0) for name in self._names]
        self._described[place] = inside and bool(np.isfinite(self._features[place]).all())
        self._points[place] = self._standardised(self._features[place])

    def _standardised(self, features: Floats) -> Floats:
        return np.asarray((features[..., self._varied] - self._centre) / self._scale)

    def _grow(self, size: int) -> None:
        more = size - len(self._rows)
        width = self._features.shape[1]
        self._rows = np.vstack((self._rows, np.full((more, self._rows.shape[1]), math.nan)))
        self._features = np.vstack((self._features, np.full((more, width), math.nan)))
        self._points = self._standardised(self._features)
        none = np.zeros(more, dtype=bool)
        self._described = np.concatenate((self._described, none))
        self._usable = np.concatenate((self._usable, none))
