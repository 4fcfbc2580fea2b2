"""Statistics of draws, against processes whose answers are known."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import binomtest

from fastllc.convergence import drift, ess, interval, rhat, standard_error
from traces import autoregressive


def test_ess_of_a_known_process():
    x = autoregressive(np.random.default_rng(0), (4, 10_000), 0.8)
    assert ess(x) == pytest.approx(x.size / 9, rel=0.2)
    assert 0.3 * x.size / 9 < ess(x, "tail") < x.size


def test_ess_of_copies_is_that_of_one():
    x = autoregressive(np.random.default_rng(0), (1, 10_000), 0.8)
    copies = np.repeat(x, 6, axis=0)
    for kind in ("bulk", "tail"):
        assert ess(copies, kind, shared=True) == ess(x, kind)
        assert ess(copies, kind) > 3 * ess(x, kind)


@pytest.mark.parametrize("chains", [1, 2, 8])
@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_standard_error_covers_the_truth(chains, phi):
    rng = np.random.default_rng(chains)
    z = [
        x.mean() / standard_error(x)
        for x in (autoregressive(rng, (chains, 500), phi) for _ in range(100))
    ]
    assert 0.7 < np.std(z) < 1.3


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_standard_error_covers_the_truth_of_chains_that_share_noise(phi):
    rng = np.random.default_rng(1)
    z = []
    for _ in range(100):
        common = rng.normal(size=500)
        x = autoregressive(rng, (8, 500), phi) + common
        z.append(x.mean() / np.array([standard_error(x, shared=True), standard_error(x)]))
    honest, naive = np.std(z, axis=0)
    assert 0.7 < honest < 1.3
    assert phi > 0 or naive > 2  # sqrt((1 + 1/8) / (2/8)) = 2.1


def test_standard_error_sees_slow_motion_under_white_noise():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(60):
        slow = autoregressive(rng, (8, 2000), math.exp(-1 / 200))
        x = math.sqrt(0.02) * slow + math.sqrt(0.98) * rng.normal(size=slow.shape)
        z.append(x.mean() / standard_error(x))
    assert np.std(z) < 1.5


@pytest.mark.parametrize("shared", [False, True])
def test_standard_error_of_chains_that_disagree_is_their_distance(shared):
    x = np.random.default_rng(0).normal(size=(4, 1000)) + 10 * np.arange(4)[:, None]
    assert standard_error(x, shared=shared) > 5


def test_rhat_of_one_chain_compares_its_halves():
    x = np.random.default_rng(0).normal(size=(1, 1001))
    assert rhat(x) < 1.01
    assert rhat(x + np.linspace(0, 3, 1001)) > 1.1


@pytest.mark.parametrize("shared", [False, True])
def test_drift_is_standard_normal_at_rest_and_signed(shared):
    rng = np.random.default_rng(0)
    common = rng.normal(size=(100, 600)) if shared else np.zeros((100, 600))
    z = [drift(autoregressive(rng, (4, 600), 0.5) + c, shared=shared) for c in common]
    assert abs(np.mean(z)) < 0.4
    assert 0.7 < np.std(z) < 1.3
    x = rng.normal(size=(4, 600))
    assert drift(x + np.linspace(0, 1, 600), shared=shared) > 3
    assert drift(x - np.linspace(0, 1, 600), shared=shared) < -3


def test_copies_drift_as_one():
    x = np.random.default_rng(0).normal(size=(1, 600))
    copies = np.repeat(x, 8, axis=0)
    assert drift(copies, shared=True) == pytest.approx(drift(x), rel=1e-12)
    assert abs(drift(copies)) > 2 * abs(drift(x))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (4, 3)])
@pytest.mark.parametrize("shared", [False, True])
def test_too_few_draws_are_no_statistics(shape, shared):
    x = np.random.default_rng(0).normal(size=shape)
    for value in (rhat(x), drift(x, shared=shared), standard_error(x, shared=shared)):
        assert math.isnan(value)


def test_constant_draws_have_no_error():
    assert standard_error(np.ones((4, 100))) == 0


@pytest.mark.parametrize("phi", [0.0, 0.9])
@pytest.mark.parametrize("chains", [1, 4, 8])
def test_an_interval_holds_the_mean_of_correlated_chains(chains, phi):
    """Pieces of at least 400 draws, against the 19 that one independent draw takes at most."""
    rng = np.random.default_rng(5)
    held = 0
    for draws in autoregressive(rng, (1000, chains, 2000), phi):
        low, high = interval(draws)
        held += low < 0 < high
    assert binomtest(held, 1000, 0.95).pvalue > 1e-3


def test_an_interval_of_chains_with_common_noise_is_that_of_their_average():
    draws = np.random.default_rng(6).normal(size=(1, 800)).repeat(4, axis=0)
    assert interval(draws, shared=True) == pytest.approx(interval(draws[:1]))
    assert np.isnan(interval(draws[:, :3], shared=True)).all()
    low, high = interval(draws[:1], 0.5)
    assert high - low == pytest.approx(
        np.subtract(*interval(draws[:1])[::-1]) * stdtrit(4, 0.75) / stdtrit(4, 0.975)
    )
