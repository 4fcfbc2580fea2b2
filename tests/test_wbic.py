"""Free energies of models whose posterior is known."""

import math

import numpy as np
import pytest

from fastllc import default_nbeta
from fastllc.estimators.coefficient import llc
from fastllc.estimators.wbic import free_energy, wbic
from traces import trace_of

N = 500


def quadratic_losses(d, nbeta, rng, init_loss, shape=(4, 400)):
    """Exact draws of the posterior of L = L* + |w|^2 / 2."""
    return init_loss + (rng.normal(size=(*shape, d)) ** 2).sum(-1) / (2 * nbeta)


def test_wbic_of_a_quadratic_is_its_energy_at_that_temperature():
    """n E[L] = n L* + d / (2 beta), beta = 1 / log n."""
    d, first, z = 6, 1.25, []
    for seed in range(60):
        loss = quadratic_losses(d, default_nbeta(N), np.random.default_rng(seed), first)
        found = wbic(trace_of(loss, first, nbeta=default_nbeta(N), num_samples=N))
        z.append(float((found["wbic"] - (N * first + d / 2 * math.log(N))) / found["sem"]))
    assert abs(np.mean(z)) < 5 / np.sqrt(len(z))
    assert 0.7 < np.std(z) < 1.3


def test_both_agree_at_the_temperature_of_the_wbic():
    loss = np.random.default_rng(0).normal(1.5, 1, size=(2, 4, 100))
    trace = trace_of(loss, [1.0, 2.0], dims=("checkpoint",), nbeta=default_nbeta(N), num_samples=N)
    a, b = wbic(trace), free_energy(trace)
    np.testing.assert_allclose(a["wbic"], b["free_energy"], rtol=1e-13)
    np.testing.assert_allclose(a["sem"], b["sem"], rtol=1e-13)


def test_free_energy_at_any_temperature_is_loss_and_llc():
    loss = np.random.default_rng(0).normal(1.5, 1, size=(3, 2, 4, 100))
    first = np.array([1.0, 2.0, 4.0])
    trace = trace_of(loss, first, dims=("checkpoint", "setting"), nbeta=[3.0, 30.0], num_samples=N)
    found, coefficient = free_energy(trace), llc(trace)
    assert found["free_energy"].dims == ("checkpoint", "setting")
    np.testing.assert_allclose(
        found["free_energy"], N * first[:, None] + coefficient["llc"] * math.log(N)
    )
    np.testing.assert_allclose(found["sem"], coefficient["sem"] * math.log(N))


def test_the_energy_of_a_regular_model_meets_the_exact_one_for_growing_n():
    """n points N(w, 1) in d dimensions, flat prior on a box: F - n L* = d/2 log n + constant.

    The constant, d (log |box| - log(2 pi) / 2), does not depend on n.
    """
    d, box, rest = 4, 20.0, []
    for n in (10**3, 10**6):
        nbeta = default_nbeta(n)
        loss = quadratic_losses(d, nbeta, np.random.default_rng(n), 0.7, shape=(8, 20_000))
        found = free_energy(trace_of(loss, 0.7, nbeta=nbeta, num_samples=n))
        exact = n * 0.7 - d / 2 * math.log(2 * math.pi / n) + d * math.log(box)
        rest.append((float(exact - found["free_energy"]), float(found["sem"])))
    constant = d * (math.log(box) - math.log(2 * math.pi) / 2)
    for value, sem in rest:
        assert abs(value - constant) < 4 * sem


def test_another_temperature_is_refused_and_named():
    loss = np.ones((2, 4, 10))
    trace = trace_of(loss, dims=("setting",), nbeta=[default_nbeta(N), 100.0], num_samples=N)
    with pytest.raises(
        ValueError, match=r"nbeta must be n / log n = 80\.4556 for n = 500, got 100"
    ):
        wbic(trace)
    assert np.isfinite(wbic(trace.isel(setting=0))["wbic"])


@pytest.mark.parametrize("energy", [wbic, free_energy])
def test_unknown_numbers_of_samples_are_refused(energy):
    with pytest.raises(
        ValueError, match="num_samples of the trace must be an int >= 2, got 'none'"
    ):
        energy(trace_of(np.ones((4, 10)), num_samples="none"))
