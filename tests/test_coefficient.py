"""The LLC of finished traces."""

import numpy as np
import pytest

from fastllc.convergence import drift, ess, rhat, standard_error
from fastllc.estimators.coefficient import llc
from traces import autoregressive, trace_of

RNG = np.random.default_rng(0)
WHITE = (5 + RNG.normal(size=(4, 1000))).astype(np.float32)
STATISTICS = ("llc", "sem", "std", "rhat", "ess_bulk", "ess_tail", "drift")


def test_the_estimate_and_its_statistics_are_those_of_the_draws():
    found = llc(trace_of(WHITE, 4.0, nbeta=3.0, num_burnin_steps=200))
    used = WHITE[:, 200:].astype(float) - 4.0
    per_chain = 3.0 * used.mean(axis=1)
    expected = {
        "llc": per_chain.mean(),
        "sem": 3.0 * standard_error(used),
        "std": per_chain.std(ddof=1),
        "rhat": rhat(used),
        "ess_bulk": ess(used),
        "ess_tail": ess(used, "tail"),
        "drift": drift(used),
        "num_chains": 4,
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-12), name
    np.testing.assert_allclose(found["llc_chains"], per_chain, rtol=1e-12)


def test_the_error_covers_a_quadratics_llc():
    """L = |w|^2 / 2 in d dimensions under exp(-nbeta L - gamma |w|^2 / 2): a gamma law."""
    d, nbeta, gamma = 6, 50.0, 10.0
    z = []
    for seed in range(60):
        w = np.random.default_rng(seed).normal(size=(4, 300, d)) / np.sqrt(nbeta + gamma)
        found = llc(trace_of((w**2).sum(-1) / 2, nbeta=nbeta, localization=gamma))
        z.append(float((found["llc"] - d / 2 * nbeta / (nbeta + gamma)) / found["sem"]))
    assert abs(np.mean(z)) < 5 / np.sqrt(len(z))
    assert 0.7 < np.std(z) < 1.3


@pytest.mark.parametrize("shared", [0, 1])
def test_minibatches_that_chains_share_are_in_the_error(shared):
    """Chains of one common noise: the error of the mean is that of the noise, however many."""
    rng = np.random.default_rng(3)
    z = []
    for _ in range(100):
        loss = 0.1 * autoregressive(rng, (32, 400), 0.5) + rng.normal(size=400)
        found = llc(trace_of(loss, shared_batches=shared))
        z.append(float(found["llc"] / found["sem"]))
    assert (0.7 < np.std(z) < 1.3) == bool(shared)
    assert shared or np.std(z) > 4


def test_paired_initial_losses_cut_the_error_and_not_the_estimate():
    rng = np.random.default_rng(0)
    base = rng.normal(1.0, 1.0, size=(4, 2000))
    loss = base + 0.1 + 0.05 * rng.normal(size=base.shape)
    paired, plain = llc(trace_of(loss, 1.0, baseline=base)), llc(trace_of(loss, 1.0))
    assert float(plain["sem"] / paired["sem"]) == pytest.approx(20, rel=0.3)
    assert abs(float(paired["llc"]) - 0.2) < 4 * float(paired["sem"])
    assert abs(float(plain["llc"]) - 0.2) < 4 * float(plain["sem"])


def test_diverged_chains_enter_nothing():
    spoiled = WHITE.copy()
    spoiled[2] = 1e6
    left, whole = (
        llc(trace_of(spoiled, diverged_at=[-1, -1, 3, -1])),
        llc(trace_of(WHITE[[0, 1, 3]])),
    )
    for name in STATISTICS:
        assert left[name] == whole[name]
    assert left["num_chains"] == 3
    np.testing.assert_array_equal(np.isnan(left["llc_chains"]), [False, False, True, False])


def test_interrupted_chains_count_as_far_as_all_have_come():
    loss = WHITE.copy()
    loss[1, 700:] = np.nan
    loss[3, 499:] = np.nan
    cut, whole = llc(trace_of(loss)), llc(trace_of(WHITE[:3, :700]))
    for name in STATISTICS:
        assert cut[name] == whole[name]
    np.testing.assert_array_equal(np.isnan(cut["llc_chains"]), [False, False, False, True])


def test_no_chain_is_no_estimate():
    found = llc(trace_of(WHITE, diverged_at=[5] * 4))
    assert all(np.isnan(found[name]) for name in STATISTICS)
    assert found["num_chains"] == 0
    assert np.isnan(found["llc_chains"]).all()


def test_one_chain_has_no_spread_between_chains():
    found = llc(trace_of(WHITE[:1]))
    assert np.isnan(found["std"])
    assert found["sem"] > 0


def test_cells_are_estimated_apart():
    loss = RNG.normal(size=(3, 2, 4, 100)).astype(np.float32)
    trace = trace_of(
        loss, [0.0, 1.0, 2.0], dims=("checkpoint", "setting"), nbeta=[1.0, 10.0], lr=[0.1, 0.2]
    )
    found = llc(trace)
    assert found["llc"].dims == ("checkpoint", "setting")
    assert found["llc_chains"].dims == ("checkpoint", "setting", "chain")
    for c in range(3):
        for s in range(2):
            alone = llc(trace_of(loss[c, s], float(c), nbeta=[1.0, 10.0][s]))
            for name in STATISTICS:
                assert found[name][c, s] == alone[name]
    np.testing.assert_array_equal(found["lr"], [0.1, 0.2])
