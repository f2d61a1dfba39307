"""The Gaussian process: it passes through what it was told, and knows where it was told nothing."""

from __future__ import annotations

import numpy as np

from nas.search.surrogate import GaussianProcess, Hyperparameters, likeliest


def curve(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sin(2 * x[:, 0]) + 0.5 * x[:, 1])


def points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def test_it_predicts_what_it_has_not_seen() -> None:
    x, new = points(60), points(200, seed=1)
    model = GaussianProcess(x, curve(x), likeliest(x, curve(x)))
    mean, _ = model.predict(new)
    assert np.corrcoef(mean, curve(new))[0, 1] > 0.95


def test_it_is_sure_where_it_was_told_and_unsure_far_away() -> None:
    x = points(30)
    model = GaussianProcess(x, curve(x), Hyperparameters(0.7, 0.01))
    mean, deviation = model.predict(np.vstack((x, [[30.0, 30.0]])))
    assert np.abs(mean[:-1] - curve(x)).max() < 0.2
    assert deviation[-1] > 3 * deviation[:-1].max()


def test_noise_is_told_from_signal() -> None:
    x = points(80)
    noisy = np.random.default_rng(3).normal(size=80)
    assert likeliest(x, noisy).noise > likeliest(x, curve(x)).noise


def test_one_result_and_no_descriptors_are_enough() -> None:
    model = GaussianProcess(np.zeros((1, 0)), np.array([2.0]), Hyperparameters())
    mean, deviation = model.predict(np.zeros((3, 0)))
    np.testing.assert_allclose(mean, 2.0, atol=1e-6)
    assert np.isfinite(deviation).all()
