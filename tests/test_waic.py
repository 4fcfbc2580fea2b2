"""WAIC of Bayesian linear regression, where the posterior of every loss is known."""

import math

import numpy as np
import pytest

from fastllc.estimators import observables
from fastllc.estimators.waic import waic
from regression import BETA, NBETA, N, Regression
from traces import trace_of

MODEL = Regression()


def trace_with(losses, **options):
    return trace_of(
        losses.mean(-1),
        nbeta=NBETA,
        num_samples=N,
        observables={"train": losses},
        **options,
    )


def test_exact_draws_give_the_exact_quantities_within_their_errors():
    rng = np.random.default_rng(1)
    found = waic(trace_with(MODEL.losses(rng, (4, 20_000))), "train")
    for name, value in MODEL.exact().items():
        error = float(found[f"{name}_sem"])
        assert abs(float(found[name]) - value) < 4 * error, name
        assert 0 < error < 0.02 * abs(value), name
    assert found["num_chains"] == 4


def test_errors_cover_the_truth():
    rng, z = np.random.default_rng(2), {name: [] for name in MODEL.exact()}
    for _ in range(80):
        found = waic(trace_with(MODEL.losses(rng, (4, 250))), "train")
        for name, value in MODEL.exact().items():
            z[name].append(float((found[name] - value) / found[f"{name}_sem"]))
    for name, values in z.items():
        assert abs(np.mean(values)) < 5 / math.sqrt(len(values)), name
        assert 0.7 < np.std(values) < 1.3, name


def test_the_definition_to_rounding():
    losses = MODEL.losses(np.random.default_rng(3), (3, 40)).astype(np.float32)
    found = waic(trace_with(losses), "train")
    pooled = losses.reshape(-1, N).astype(float)
    variance = pooled.var(axis=0, ddof=1).sum()
    training_loss = -np.log(np.exp(-pooled).mean(axis=0)).mean()
    assert float(found["functional_variance"]) == pytest.approx(variance, rel=1e-12)
    assert float(found["training_loss"]) == pytest.approx(training_loss, rel=1e-12)
    assert float(found["waic"]) == pytest.approx(training_loss + BETA * variance / N, rel=1e-12)


def test_likelihoods_too_small_for_a_double_do_no_harm():
    losses = MODEL.losses(np.random.default_rng(3), (3, 40))
    near, far = waic(trace_with(losses), "train"), waic(trace_with(losses + 4096), "train")
    assert float(far["training_loss"] - near["training_loss"]) == pytest.approx(4096, abs=1e-3)
    assert float(far["functional_variance"]) == pytest.approx(
        float(near["functional_variance"]), rel=1e-2
    )


def test_blocks_change_nothing(monkeypatch):
    trace = trace_with(MODEL.losses(np.random.default_rng(3), (3, 40)))
    whole = waic(trace, "train")
    monkeypatch.setattr(observables, "_BLOCK", 3 * 40 * 7)
    parts = waic(trace, "train")
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12)


def test_a_random_part_of_the_samples_stands_for_all():
    losses = MODEL.losses(np.random.default_rng(3), (3, 40))
    part, doubled = waic(trace_with(losses[..., :10]), "train"), np.tile(losses[..., :10], 5)
    whole = waic(trace_with(doubled), "train")
    for name in whole:
        np.testing.assert_allclose(part[name], whole[name], rtol=1e-9)


def test_lost_chains_enter_nothing_and_cells_stand_apart():
    losses = MODEL.losses(np.random.default_rng(4), (2, 3, 4, 100)).astype(np.float32)
    losses[1, 2, 0] = np.nan
    losses[1, 2, 3, 60:] = np.nan
    losses[0, 1, 2] = 1e9
    diverged_at = np.full((2, 3, 4), -1)
    diverged_at[1, 2, 0] = diverged_at[0, 1, 2] = 5
    trace = trace_with(losses, dims=("checkpoint", "setting"), diverged_at=diverged_at)
    found = waic(trace, "train")
    assert found["waic"].dims == ("checkpoint", "setting")
    alone = waic(trace_with(losses[1, 2, 1:, :60]), "train")
    other = waic(trace_with(losses[0, 1][[0, 1, 3]]), "train")
    for name in alone:
        assert found[name][1, 2] == alone[name]
        assert found[name][0, 1] == other[name]


def test_no_chain_is_no_estimate():
    losses = MODEL.losses(np.random.default_rng(4), (2, 10))
    found = waic(trace_with(losses, diverged_at=[3, 4]), "train")
    assert found["num_chains"] == 0
    assert np.isnan(found["waic"])
    assert np.isnan(found["waic_sem"])


def test_unknown_observables_are_refused():
    losses = MODEL.losses(np.random.default_rng(4), (2, 10))
    with pytest.raises(ValueError, match=r"one of \['train'\], which the trace has, got 'test'"):
        waic(trace_with(losses), "test")
    with pytest.raises(ValueError, match=r"one of \[\]"):
        waic(trace_of(np.ones((2, 10))), "test")
