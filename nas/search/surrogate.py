"""A Gaussian process on descriptors: what a model of few results may say of thousands.

Letters: n results, P points, d descriptors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from nas.search.pareto import Floats

LENGTHS = (0.35, 0.7, 1.4, 2.8)
"""Length scales that are tried, in units of the root of the number of descriptors."""
NOISES = (0.01, 0.05, 0.2)
"""Shares of the variance that are tried as noise."""
RIDGE = 3.0
"""Strength of the penalty on the linear trend, in results."""


@dataclass(frozen=True)
class Hyperparameters:
    """The length scale and the noise's share of the variance."""

    length: float = 1.0
    noise: float = 0.05


class GaussianProcess:
    """A linear trend and, on what it leaves, a Matérn 5/2 process.

    Source: Rasmussen and Williams 2006, chapters 2 and 4.
    """

    def __init__(self, points: Floats, values: Floats, hyperparameters: Hyperparameters) -> None:
        """Fit (n, d) standardised points with (n,) values."""
        self._points = points
        self._length = hyperparameters.length * math.sqrt(max(1, points.shape[1]))
        self._offset, self._trend = _trend(points, values)
        residual = values - self._linear(points)
        self._variance = float(residual.var()) + 1e-12
        noise = hyperparameters.noise
        kernel = (1 - noise) * self._kernel(points) + noise * np.eye(len(points))
        self._factor = cho_factor(kernel, lower=True, check_finite=False)
        self._weights = cho_solve(self._factor, residual, check_finite=False)
        self._share = 1 - noise
        half_logs = np.log(np.diag(self._factor[0])).sum()
        n = len(points)
        self.evidence = -0.5 * n * math.log(float(residual @ self._weights) / n + 1e-12) - half_logs
        """Log marginal likelihood, the variance being the likeliest, up to a constant."""

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (P,) of the values without noise."""
        cross = self._share * self._kernel(points)
        mean = self._linear(points) + cross @ self._weights
        explained = np.einsum("pn,np->p", cross, cho_solve(self._factor, cross.T))
        variance = self._variance * np.maximum(self._share - explained, 1e-9)
        return mean, np.sqrt(variance)

    def _linear(self, points: Floats) -> Floats:
        return np.asarray(self._offset + points @ self._trend)

    def _kernel(self, points: Floats) -> Floats:
        squares = (points**2).sum(1)[:, None] + (self._points**2).sum(1)
        distance = np.sqrt(np.maximum(squares - 2 * points @ self._points.T, 0)) / self._length
        r = math.sqrt(5) * distance
        return np.asarray((1 + r + r * r / 3) * np.exp(-r))


def likeliest(points: Floats, values: Floats) -> Hyperparameters:
    """Of the hyperparameters that are tried, those under which the values are likeliest."""
    tried = [Hyperparameters(length, noise) for length in LENGTHS for noise in NOISES]
    return max(tried, key=lambda h: GaussianProcess(points, values, h).evidence)


def _trend(points: Floats, values: Floats) -> tuple[float, Floats]:
    """Ridge regression: the mean, and a slope for each descriptor."""
    offset = float(values.mean())
    centre = points.mean(axis=0)
    x = points - centre
    slopes = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (values - offset))
    return offset - float(centre @ slopes), slopes
