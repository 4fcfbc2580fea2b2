"""WBIC and WAIC as estimators, on a regression whose posterior is known."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from fastllc import BAOAB, WAICEstimator, WBICEstimator, default_nbeta, wbic
from regression import GAMMA, NBETA, N, Regression

# BAOAB has no step-size bias where the posterior is Gaussian and gradients are exact.
EXACT = {
    "sampler": functools.partial(BAOAB, friction=0.3),
    "lr": 0.02,
    "nbeta": NBETA,
    "localization": 0.0,
    "weight_decay": GAMMA,
    "num_chains": 8,
    "num_draws": 3000,
    "num_burnin_steps": 200,
    "seed": 0,
    "progress": False,
}


def negative_log_likelihood(outputs, targets):
    return ((outputs - targets) ** 2 + math.log(2 * math.pi)).mean() / 2


def problem():
    exact = Regression()
    model = nn.Linear(exact.x.shape[1], 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(exact.mean))
    return exact, model, (torch.from_numpy(exact.x), torch.from_numpy(exact.y)[:, None])


def test_waic_is_that_of_the_gaussian_posterior():
    exact, model, data = problem()
    found = WAICEstimator(**EXACT).fit(model, data, negative_log_likelihood)
    for name, value in exact.exact().items():
        sem = getattr(found, f"{name}_sem_")
        assert 0 < sem < 0.05 * abs(value)
        assert abs(getattr(found, f"{name}_") - value) < 4 * sem, name
    assert found.trace_["observables/data/loss"].shape == (8, 3000, N)


def test_fewer_samples_and_draws_are_observed_on_request():
    _, model, data = problem()
    settings = EXACT | {"num_draws": 100}
    found = WAICEstimator(num_observed=7, observe_every=10, **settings)
    found.fit(model, data, negative_log_likelihood)
    assert found.trace_["observables/data/loss"].shape == (8, 10, 7)
    with pytest.raises(ValueError, match="observables must leave the name 'data'"):
        WAICEstimator(observables={"data": data}, **settings).fit(
            model, data, negative_log_likelihood
        )


def test_wbic_is_the_mean_loss_of_the_gaussian_posterior():
    exact, model, data = problem()
    found = WBICEstimator(**EXACT).fit(model, data, negative_log_likelihood)
    mu, s = exact.residuals()
    value = np.sum(mu**2 + np.diag(s) + math.log(2 * math.pi)) / 2
    assert default_nbeta(N) == NBETA
    assert 0 < found.wbic_sem_ < 0.01 * value
    assert abs(found.wbic_ - value) < 4 * found.wbic_sem_
    assert found.free_energy_ == pytest.approx(found.wbic_, rel=1e-9)
    assert float(wbic(found.trace_)["wbic"]) == found.wbic_


def test_results_keep_the_dimensions_of_a_study():
    _, model, data = problem()
    settings = EXACT | {"num_draws": 50, "localization": [0.0, 1.0]}
    found = WAICEstimator(**settings).fit([model, model], data, negative_log_likelihood)
    assert found.waic_.dims == ("checkpoint", "setting")
    assert found.waic_.shape == (2, 2)
