"""Convergence diagnostics, against processes whose answers are known."""

import math

import numpy as np
import pytest
import xarray as xr

from fastllc import diagnostics
from fastllc.diagnostics import drift, ess, rhat, standard_error, summarize


def autoregressive(rng, chains, draws, phi):
    """Stationary AR(1), unit variance: (1 + phi) / (1 - phi) draws are worth one independent."""
    x = np.empty((chains, draws))
    x[:, 0] = rng.normal(size=chains)
    noise = rng.normal(size=(chains, draws)) * math.sqrt(1 - phi**2)
    for t in range(1, draws):
        x[:, t] = phi * x[:, t - 1] + noise[:, t]
    return x


def samples(loss, init_loss=0.0, nbeta=2.0, diverged=()):
    diverged_at = np.where(np.isin(np.arange(len(loss)), diverged), 3, -1)
    trace = loss.astype(np.float32)
    return xr.Dataset(
        {
            "loss": (("chain", "draw"), np.where(diverged_at[:, None] < 0, trace, np.nan)),
            "loss_trace": (("chain", "step"), trace),
            "init_loss": ((), init_loss),
            "diverged_at": ("chain", diverged_at),
        },
        attrs={"nbeta": nbeta, "num_burnin_steps": 0, "num_steps_bw_draws": 1},
    )


def test_ess_of_a_known_process():
    x = autoregressive(np.random.default_rng(0), 4, 10_000, 0.8)
    assert ess(x) == pytest.approx(x.size / 9, rel=0.2)
    assert 0.3 * x.size / 9 < ess(x, "tail") < x.size


@pytest.mark.parametrize("chains", [1, 2, 8])
@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_standard_error_covers_the_truth(chains, phi):
    rng = np.random.default_rng(chains)
    z = [
        x.mean() / standard_error(x)
        for x in (autoregressive(rng, chains, 500, phi) for _ in range(100))
    ]
    assert 0.7 < np.std(z) < 1.3


def test_standard_error_sees_slow_motion_under_white_noise():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(60):
        slow = autoregressive(rng, 8, 2000, math.exp(-1 / 200))
        x = math.sqrt(0.02) * slow + math.sqrt(0.98) * rng.normal(size=slow.shape)
        z.append(x.mean() / standard_error(x))
    assert np.std(z) < 1.5


def test_standard_error_of_chains_that_disagree_is_their_distance():
    x = np.random.default_rng(0).normal(size=(4, 1000)) + 10 * np.arange(4)[:, None]
    assert standard_error(x) > 5


def test_rhat_of_one_chain_compares_its_halves():
    x = np.random.default_rng(0).normal(size=(1, 1001))
    assert rhat(x) < 1.01
    assert rhat(x + np.linspace(0, 3, 1001)) > 1.1


def test_drift_is_standard_normal_at_rest_and_signed():
    rng = np.random.default_rng(0)
    z = [drift(autoregressive(rng, 4, 600, 0.5)) for _ in range(100)]
    assert abs(np.mean(z)) < 0.4
    assert 0.7 < np.std(z) < 1.3
    x = rng.normal(size=(4, 600))
    assert drift(x + np.linspace(0, 1, 600)) > 3
    assert drift(x - np.linspace(0, 1, 600)) < -3


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_too_few_draws_give_nan_and_a_warning(shape):
    summary = summarize(samples(np.ones(shape)))
    assert math.isnan(summary.sem)
    assert math.isnan(summary.rhat)
    assert math.isnan(summary.drift)
    assert summary.llc == 2.0
    assert any("num_draws" in text for text in summary.warnings)
    assert "nan" in str(summary)


def test_constant_losses_are_no_error():
    assert summarize(samples(np.ones((4, 100)))).sem == 0.0


def test_summary_of_healthy_chains_is_quiet():
    loss = 5 + np.random.default_rng(0).normal(size=(4, 1000))
    summary = summarize(samples(loss, init_loss=4.0))
    assert summary.llc == pytest.approx(2 * (loss.mean() - 4.0), rel=1e-6)
    assert summary.sem == pytest.approx(2 / math.sqrt(4000), rel=0.5)
    assert summary.std == pytest.approx(2 * loss.mean(axis=1).std(ddof=1), rel=1e-5)
    assert summary.warnings == ()
    assert summary.num_chains == 4


def test_diverged_chains_enter_nothing():
    loss = 5 + np.random.default_rng(0).normal(size=(4, 1000))
    spoiled = loss.copy()
    spoiled[2] = 1e6
    left, whole = summarize(samples(spoiled, diverged=[2])), summarize(samples(loss[[0, 1, 3]]))
    assert left.llc == whole.llc
    assert left.sem == whole.sem
    assert left.diverged == (2,)
    assert "chain 2" in str(left)
    assert np.isnan(diagnostics.llc_of_chains(samples(spoiled, diverged=[2]))[2])


RNG = np.random.default_rng(1)
WHITE = 5 + RNG.normal(size=(4, 1000))


@pytest.mark.parametrize(
    ("loss", "init_loss", "words"),
    [
        (WHITE + np.arange(4)[:, None], 0.0, "R-hat"),
        (WHITE[:, :50], 0.0, "ESS"),
        (WHITE + np.linspace(0, 1, 1000), 0.0, "still rises"),
        (WHITE - np.linspace(0, 1, 1000), 0.0, "still falls"),
        (WHITE, 6.0, "negative"),
        (WHITE - 2 * (np.arange(1000) < 200), 4.0, "dips"),
        (WHITE[:1], 0.0, "one chain"),
    ],
)
def test_warnings_name_the_trouble(loss, init_loss, words):
    summary = summarize(samples(loss, init_loss))
    assert any(words in text for text in summary.warnings)
    assert words in str(summary)
