"""Covariances of losses and of weights as estimators, on a regression whose posterior is known."""

import warnings

import numpy as np
import pytest
import torch

from fastllc import (
    DivergenceWarning,
    LossCovarianceEstimator,
    WeightCovarianceEstimator,
    loss_covariance,
)
from test_criteria import EXACT, negative_log_likelihood, problem


def test_losses_vary_together_as_under_the_gaussian_posterior():
    exact, model, data = problem()
    settings = EXACT | {"num_chains": 24, "num_draws": 1000}
    found = LossCovarianceEstimator(**settings).fit(model, data, negative_log_likelihood)
    trace = found.trace_
    each = np.stack([loss_covariance(trace.isel(chain=[c]), "data") for c in range(24)])
    error = each.std(axis=0, ddof=1) / 24**0.5
    # Of 2500 dependent values, each within 7 errors from 24 chains.
    assert (np.abs(each.mean(axis=0) - exact.covariance_of_losses()) < 7 * error).all()
    diagonal = np.sqrt(np.diag(found.covariance_))
    scaled = found.covariance_ / np.outer(diagonal, diagonal)
    np.testing.assert_allclose(found.correlation_, scaled, atol=1e-9)


def test_weights_vary_most_where_the_gaussian_posterior_is_widest():
    exact, model, data = problem()
    fits = [
        WeightCovarianceEstimator(k=2, **EXACT | {"seed": seed, "num_draws": 1000}).fit(
            model, data, negative_log_likelihood
        )
        for seed in range(8)
    ]
    values, vectors = np.linalg.eigh(exact.covariance)
    found = np.stack([fit.eigenvalues_ for fit in fits])
    error = found.std(axis=0, ddof=1) / 8**0.5
    assert (error < 0.05 * values[:0:-1]).all()
    assert (np.abs(found.mean(axis=0) - values[:0:-1]) < 5 * error).all()
    totals = np.array([float(fit.total_) for fit in fits])
    assert abs(totals.mean() - values.sum()) < 5 * totals.std(ddof=1) / 8**0.5
    overlap = np.abs(fits[0].eigenvectors_.values @ vectors[:, ::-1])
    assert overlap[0, 0] > 0.95
    assert overlap[1, 1] > 0.95


def test_all_chains_of_a_cell_are_one_sample():
    """Also of a stack, whose draws the trace does not keep: their mean is that of all chains."""
    _, model, data = problem()
    deltas = []
    settings = EXACT | {"num_draws": 40, "lr": [0.01, 0.02]}
    estimator = WeightCovarianceEstimator(k=3, **settings)
    estimator.fit(model, data, negative_log_likelihood)
    estimator.run(
        model,
        data,
        negative_log_likelihood,
        watch=lambda c, d: deltas.append((c.setting, d.clone())),
    )
    for setting in range(2):
        weights = torch.stack([d for s, d in deltas if s == setting])
        expected = torch.linalg.eigvalsh(torch.cov(weights.T)).flip(0)
        np.testing.assert_allclose(estimator.eigenvalues_[setting], expected, rtol=1e-9)


def test_chains_that_diverged_are_left_out():
    _, model, data = problem()
    settings = EXACT | {"num_draws": 30, "lr": [0.01, 1e3]}
    with pytest.warns(DivergenceWarning):
        found = WeightCovarianceEstimator(k=2, **settings).fit(model, data, negative_log_likelihood)
    assert np.isfinite(found.eigenvalues_[0]).all()
    assert np.isnan(found.eigenvalues_[1]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = WeightCovarianceEstimator(k=2, **settings | {"lr": 0.01}).fit(
            model, data, negative_log_likelihood
        )
    np.testing.assert_array_equal(found.eigenvalues_[0], alone.eigenvalues_)


def test_nothing_is_kept_in_a_store(tmp_path):
    _, model, data = problem()
    with pytest.raises(ValueError, match="store must be None"):
        WeightCovarianceEstimator(store=tmp_path / "run", **EXACT).fit(
            model, data, negative_log_likelihood
        )
