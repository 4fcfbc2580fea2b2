"""Covariances of losses, against numpy and against a Gaussian posterior."""

import numpy as np
import pytest

from fastllc.estimators import observables
from fastllc.estimators.covariance import loss_correlation, loss_covariance
from regression import N, Regression
from traces import trace_of

RNG = np.random.default_rng(0)
# Losses far above their spread: sums of raw squares in single precision would lose it.
LOSSES = (1000 + RNG.normal(size=(3, 40, 7)) @ RNG.normal(size=(7, 7))).astype(np.float32)
OTHER = RNG.normal(size=(3, 40, 5)).astype(np.float32)


def trace_with(**options):
    return trace_of(np.ones((3, 40)), observables={"train": LOSSES, "probe": OTHER}, **options)


def test_pooled_draws_have_numpys_covariance_and_correlation():
    pooled = LOSSES.reshape(-1, 7).astype(float)
    found = loss_covariance(trace_with(), "train")
    assert found.dims == ("sample", "other_sample")
    np.testing.assert_allclose(found, np.cov(pooled.T), rtol=1e-9)
    np.testing.assert_allclose(
        loss_correlation(trace_with(), "train"), np.corrcoef(pooled.T), rtol=1e-9
    )


def test_between_two_observables():
    both = np.concatenate([LOSSES, OTHER], axis=2).reshape(-1, 12).astype(float)
    found = loss_covariance(trace_with(), "train", "probe")
    assert found.shape == (7, 5)
    np.testing.assert_allclose(found, np.cov(both.T)[:7, 7:], atol=1e-12)
    correlation = loss_correlation(trace_with(), "train", "probe")
    np.testing.assert_allclose(correlation, np.corrcoef(both.T)[:7, 7:], atol=1e-12)


@pytest.mark.parametrize("other", [None, "probe"])
def test_blocks_change_nothing(monkeypatch, other):
    whole = loss_covariance(trace_with(), "train", other)
    monkeypatch.setattr(observables, "_BLOCK", 50)  # 7 and 10 draws of 40
    np.testing.assert_allclose(loss_covariance(trace_with(), "train", other), whole, rtol=1e-9)


def test_a_gaussian_posterior_has_the_covariance_in_closed_form():
    model = Regression()
    losses = model.losses(np.random.default_rng(1), (4, 20_000))
    found = loss_covariance(trace_of(losses.mean(-1), observables={"all": losses}), "all").values
    centred = (losses - losses.mean(axis=(0, 1))).reshape(-1, N)
    fourth = (centred**2).T @ (centred**2) / len(centred)
    error = np.sqrt((fourth - found**2) / len(centred))
    z = (found - model.covariance_of_losses()) / error
    assert abs(z).max() < 5.5  # of 1275 pairs
    assert np.sqrt(np.mean(z**2)) < 2


def test_lost_chains_enter_nothing_and_cells_stand_apart():
    losses = np.stack([LOSSES, LOSSES[::-1]])
    losses[0, 1] = 1e6
    losses[1, 2, 25:] = np.nan
    diverged_at = [[-1, 5, -1], [-1, -1, -1]]
    trace = trace_of(
        np.ones((2, 3, 40)),
        dims=("checkpoint",),
        observables={"train": losses},
        diverged_at=diverged_at,
    )
    found = loss_covariance(trace, "train")
    assert found.dims == ("checkpoint", "sample", "other_sample")
    kept = [LOSSES[[0, 2]], LOSSES[::-1, :25]]
    for c in range(2):
        np.testing.assert_allclose(
            found[c], np.cov(kept[c].reshape(-1, 7).astype(float).T), rtol=1e-9
        )


def test_a_chain_lost_to_one_observable_is_lost_to_both():
    other = OTHER.copy()
    other[1, 3:] = np.nan
    trace = trace_of(np.ones((3, 40)), observables={"train": LOSSES, "probe": other})
    both = np.concatenate([LOSSES, other], axis=2)[[0, 2]].reshape(-1, 12).astype(float)
    np.testing.assert_allclose(
        loss_covariance(trace, "train", "probe"), np.cov(both.T)[:7, 7:], atol=1e-12
    )


def test_a_constant_loss_has_no_correlation():
    losses = LOSSES.copy()
    losses[..., 2] = 1.5
    found = loss_correlation(trace_of(np.ones((3, 40)), observables={"a": losses}), "a")
    assert np.isnan(found[2]).all()
    assert np.isfinite(found.values[:2, :2]).all()


def test_no_chain_is_nan():
    found = loss_covariance(trace_with(diverged_at=[1, 2, 3]), "train")
    assert np.isnan(found).all()


def test_observables_at_other_draws_are_refused():
    trace = trace_of(np.ones((3, 40)), observables={"train": LOSSES, "probe": OTHER[:, ::4]})
    with pytest.raises(ValueError, match=r"same draws, got \['train', 'probe'\]"):
        loss_covariance(trace, "train", "probe")
    with pytest.raises(ValueError, match=r"one of \['probe', 'train'\].*got 'nothing'"):
        loss_covariance(trace, "train", "nothing")
