"""The LLC at zero step size, against traces of known bias and the exact bias of quadratics."""

import numpy as np
import pytest

import fastllc
from fastllc import oracles
from fastllc.estimators.coefficient import llc
from fastllc.estimators.extrapolation import extrapolate_lr
from traces import trace_of

RNG = np.random.default_rng(0)


def biased(*levels, **settings):
    """A trace whose settings have these LLCs at nbeta 2."""
    loss = np.array(levels)[:, None, None] / 2 + 0.01 * RNG.normal(size=(len(levels), 4, 500))
    return trace_of(loss, dims=("setting",), **settings)


def test_two_step_sizes_are_the_line_through_both():
    trace = biased(11.0, 12.0, lr=[1e-3, 2e-3])
    found, each = extrapolate_lr(trace), llc(trace)
    (small, large), (error, larger) = each["llc"].values, each["sem"].values
    assert float(found["llc"]) == pytest.approx(2 * small - large, rel=1e-9)
    assert float(found["sem"]) == pytest.approx(np.hypot(2 * error, larger))
    assert found["llc"].dims == ()


def test_a_line_over_many_step_sizes_is_found_within_its_error():
    lr = np.linspace(1e-3, 5e-3, 5)
    z = []
    for _ in range(100):
        found = extrapolate_lr(biased(*(10 + 300 * lr), lr=lr))
        z.append(float((found["llc"] - 10) / found["sem"]))
    assert abs(np.mean(z)) < 5 / np.sqrt(len(z))
    assert 0.7 < np.std(z) < 1.3


def test_each_nbeta_and_localization_has_its_own_line():
    lr, localization = [1e-3, 1e-3, 2e-3, 2e-3], [1.0, 2.0, 1.0, 2.0]
    found = extrapolate_lr(biased(11.0, 21.0, 12.0, 22.0, lr=lr, localization=localization))
    np.testing.assert_allclose(found["llc"], [10, 20], atol=0.02)
    assert found["localization"].values.tolist() == [1, 2]


def test_a_single_step_size_is_refused():
    with pytest.raises(ValueError, match="at least 2 lr, got one"):
        extrapolate_lr(trace_of(RNG.normal(size=(4, 100))))
    with pytest.raises(ValueError, match="at nbeta 2 and localization 3"):
        extrapolate_lr(biased(1.0, 2.0, lr=[1e-3, 2e-3], localization=[3.0, 4.0]))


def test_extrapolation_takes_the_bias_of_sgld_on_a_quadratic():
    """Exact: 1/(1 - eps a/4) each; of a tenth at the smaller step, 3 % of second order are left."""
    oracle = oracles.quadratic([1.0] * 200, n_samples=10)
    lrs = [4e-3, 8e-3]
    trace = fastllc.sample(
        oracle.model,
        oracle.data,
        oracle.loss_fn,
        lr=lrs,
        nbeta=100.0,
        localization=1.0,
        num_burnin_steps=100,
        num_draws=3000,
        seed=0,
        progress=False,
    )
    exact = oracle.exact(100.0, 1.0)
    small, large = (oracle.exact(100.0, 1.0, lr=lr) for lr in lrs)
    found = extrapolate_lr(trace)
    assert abs(float(found["llc"]) - (2 * small - large)) < 5 * float(found["sem"])
    assert abs(float(found["llc"]) - exact) < abs(small - exact) / 3
    assert small > 1.1 * exact
