"""A Gaussian process on descriptors: what a model of few results may say of thousands.

Letters: n results, P points, d descriptors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from nas.search.pareto import Floats

SIGNAL, NOISE = 0.5, 0.02
"""Variance of what the descriptors tell and of what they do not, in units of the values': a prior
guess."""
SIGNAL_SPREAD, NOISE_SPREAD = 1.0, 1.5
"""Standard deviations of the logarithms of both, before anything is known."""
BOUNDS = (-4.0, 4.0), (-6.0, 2.0), (-7.0, 0.0)
"""Of the logarithms of a descriptor's weight, of the signal and of the noise."""
ITERATIONS = 30
JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """How much each descriptor matters (d,), and the variances of signal and noise."""

    weights: Floats
    signal: float = SIGNAL
    noise: float = NOISE


class GaussianProcess:
    """A Matérn 5/2 process with a weight for each descriptor.

    Source: Rasmussen and Williams 2006, chapters 2, 4 and 5.
    """

    def __init__(self, points: Floats, values: Floats, hyperparameters: Hyperparameters) -> None:
        """Fit (n, d) standardised points with (n,) values."""
        self._mean, self._deviation, unit = _standardised(values)
        self._signal = hyperparameters.signal
        self._root = np.sqrt(hyperparameters.weights / max(1, points.shape[1]))
        self._points = points * self._root
        kernel = self._signal * _matern(_distances(self._points, self._points))
        kernel[np.diag_indices_from(kernel)] += hyperparameters.noise + JITTER
        self._factor = cho_factor(kernel, lower=True, check_finite=False)
        self._weights = cho_solve(self._factor, unit, check_finite=False)

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (P,) of the values without noise."""
        cross = self._signal * _matern(_distances(points * self._root, self._points))
        solved = cho_solve(self._factor, cross.T, check_finite=False)
        variance = self._signal - np.einsum("pn,np->p", cross, solved)
        deviation = np.sqrt(np.maximum(variance, 1e-9))
        return self._mean + self._deviation * (cross @ self._weights), self._deviation * deviation


def likeliest(points: Floats, values: Floats) -> Hyperparameters:
    """The hyperparameters that are likeliest given (n,) values at (n, d) points, and a prior.

    The prior keeps weights near 1, so that few results do not single out a descriptor.
    """
    n, d = points.shape
    above = np.triu_indices(n, 1)
    apart = (points[above[0]] - points[above[1]]) ** 2 / max(1, d)
    start = np.concatenate((np.zeros(d), np.log([SIGNAL, NOISE])))
    found = minimize(
        partial(_unlikelihood, apart=apart, above=above, values=_standardised(values)[2]),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[BOUNDS[0]] * d + [*BOUNDS[1:]],
        options={"maxiter": ITERATIONS},
    )
    weights, (signal, noise) = np.exp(found.x[:d]), np.exp(found.x[d:])
    return Hyperparameters(weights, float(signal), float(noise))


def _unlikelihood(
    logs: Floats, apart: Floats, above: tuple[NDArray[np.intp], ...], values: Floats
) -> tuple[float, Floats]:
    """Negative log posterior of the hyperparameters' logarithms (d + 2,), and its gradient.

    apart: for each pair of results above the diagonal, the squared differences (pairs, d).
    """
    weights, (signal, noise) = np.exp(logs[:-2]), np.exp(logs[-2:])
    root = np.sqrt(5 * (apart @ weights))
    decay = np.exp(-root)
    correlation = (1 + root + root**2 / 3) * decay
    n = len(values)
    kernel = np.zeros((n, n))
    kernel[above] = signal * correlation
    kernel += kernel.T
    kernel[np.diag_indices(n)] = signal + noise + JITTER
    factor = cho_factor(kernel, lower=True, check_finite=False)
    solved = cho_solve(factor, values, check_finite=False)
    inverse = cho_solve(factor, np.eye(n), check_finite=False)
    loss = 0.5 * values @ solved + np.log(np.diag(factor[0])).sum()
    by_kernel = 0.5 * (inverse - np.outer(solved, solved))
    by_pair, by_noise = 2 * by_kernel[above], float(np.trace(by_kernel))
    # the derivative of the correlation by the squared distance is -5/6 (1 + r) exp(-r)
    by_weight = -(by_pair * signal * (5 / 6) * (1 + root) * decay) @ apart * weights
    gradient = np.append(by_weight, (signal * (by_pair @ correlation + by_noise), noise * by_noise))
    centre = np.append(np.zeros(len(weights)), np.log([SIGNAL, NOISE]))
    precision = np.append(np.ones(len(weights)), (SIGNAL_SPREAD**-2, NOISE_SPREAD**-2))
    off = logs - centre
    return float(loss + 0.5 * off @ (precision * off)), gradient + precision * off


def _standardised(values: Floats) -> tuple[float, float, Floats]:
    mean, deviation = float(values.mean()), float(values.std()) + 1e-12
    return mean, deviation, (values - mean) / deviation


def _distances(a: Floats, b: Floats) -> Floats:
    """Euclidean (P, n) between rows of (P, d) and (n, d)."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _matern(distances: Floats) -> Floats:
    root = math.sqrt(5) * distances
    return np.asarray((1 + root + root * root / 3) * np.exp(-root))
