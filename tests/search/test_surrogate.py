"""The Gaussian process: it passes through what it was told, and knows where it was told nothing."""

from __future__ import annotations

import numpy as np
from scipy.optimize import check_grad

from nas.search.surrogate import GaussianProcess, Hyperparameters, _unlikelihood, likeliest


def curve(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sin(2 * x[:, 0]) + 0.5 * x[:, 1])


def points(n: int, seed: int = 0, d: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_it_predicts_what_it_has_not_seen() -> None:
    x, new = points(60), points(200, seed=1)
    model = GaussianProcess(x, curve(x), likeliest(x, curve(x)))
    mean, _ = model.predict(new)
    assert np.corrcoef(mean, curve(new))[0, 1] > 0.95


def test_it_is_sure_where_it_was_told_and_unsure_far_away() -> None:
    x = points(30)
    model = GaussianProcess(x, curve(x), Hyperparameters(np.ones(2), noise=0.001))
    mean, deviation = model.predict(np.vstack((x, [[30.0, 30.0]])))
    assert np.abs(mean[:-1] - curve(x)).max() < 0.2
    assert deviation[-1] > 3 * deviation[:-1].max()


def test_few_results_of_many_descriptors_leave_it_unsure() -> None:
    """As many descriptors as results explain anything: the errors must be owned up to."""
    x, new = points(15, d=20), points(300, seed=1, d=20)
    model = GaussianProcess(x, curve(x), likeliest(x, curve(x)))
    mean, deviation = model.predict(new)
    assert np.median(np.abs(mean - curve(new)) / deviation) < 1.5


def test_noise_is_told_from_signal() -> None:
    x = points(80)
    noisy = np.random.default_rng(3).normal(size=80)
    assert likeliest(x, noisy).noise > 5 * likeliest(x, curve(x)).noise


def test_what_matters_is_told_from_what_does_not() -> None:
    x = points(48, d=6)
    weights = likeliest(x, np.sin(2 * x[:, 0])).weights
    assert weights[0] > 5 * weights[1:].max()


def test_the_gradient_is_that_of_the_likelihood() -> None:
    x, values = points(12, d=3), curve(points(12, d=3))
    above = np.triu_indices(12, 1)
    known = {"apart": (x[above[0]] - x[above[1]]) ** 2, "above": above, "values": values}
    at = np.array([0.3, -0.5, 0.1, -0.4, -2.0])
    off = check_grad(
        lambda logs: _unlikelihood(logs, **known)[0],
        lambda logs: _unlikelihood(logs, **known)[1],
        at,
    )
    assert off < 1e-5


def test_one_result_and_no_descriptors_are_enough() -> None:
    one = np.array([2.0])
    model = GaussianProcess(np.zeros((1, 0)), one, likeliest(np.zeros((1, 0)), one))
    mean, deviation = model.predict(np.zeros((3, 0)))
    np.testing.assert_allclose(mean, 2.0, atol=1e-6)
    assert np.isfinite(deviation).all()
