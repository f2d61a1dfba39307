"""A Gaussian process on descriptors: what a model of few results may say of thousands.

Letters: n results, P points, d descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
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
        kernel = self._signal * _correlations(self._points, self._points)
        kernel[np.diag_indices_from(kernel)] += hyperparameters.noise + JITTER
        self._factor = cho_factor(kernel, lower=True, check_finite=False)
        self._weights = cho_solve(self._factor, unit, check_finite=False)

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (P,) of the values without noise."""
        cross = _correlations(points * self._root, self._points)
        cross *= self._signal
        solved = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = self._signal - np.einsum("np,np->p", solved, solved)
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


def tamed(values: Floats) -> Floats:
    """Values of which none is as far above the median as the best is below it.

    How bad a bad result is says nothing of the front, and would set the scale of the model.
    """
    middle = float(np.median(values))
    return np.asarray(np.minimum(values, 2 * middle - values.min()))


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


def _correlations(a: Floats, b: Floats) -> Floats:
    """Matérn 5/2 (P, n) between rows of (P, d) and (n, d)."""
    # in place: what is as large as this takes longer to allocate than to reckon with
    root = a @ b.T
    root *= -2
    root += (a * a).sum(axis=1)[:, None]
    root += (b * b).sum(axis=1)
    np.maximum(root, 0, out=root)
    root *= 5
    np.sqrt(root, out=root)
    factor = root * root
    factor /= 3
    factor += root
    factor += 1
    np.negative(root, out=root)
    np.exp(root, out=root)
    root *= factor
    return root
