"""What chains on quadratics converge to: closed forms, an independent sum, and chains."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

import laws
from fastllc import SGHMC, SGLD, LLCEstimator, RMSpropSGLD, oracles
from refusals import refuses

one_thread = laws.one_thread

H = [1.0, 0.3, 0.05, 0.0]


def by_whole_epochs(oracle, nbeta, gamma, eps, friction, batch_size):
    """The same value from one linear map an epoch long, with the noise of all its minibatches.

    Per weight, x is (w, m) before each step of an epoch, linear in (w, m) at its start, in the
    minibatches' means and in the injected noise.
    """
    n, total = len(oracle.data), 0.0
    k = n // batch_size
    for h, variance in zip(oracle.curvatures, oracle.variances, strict=True):
        if h == 0:
            continue
        s, decay = eps * (nbeta * h + gamma) / 2, 1 - friction
        move = np.array([[1 - s, decay], [-s, decay]])
        # Columns: w, m, then xi_0.., then z_0..
        state, before = np.eye(2, 2 + 2 * k), []
        for j in range(k):
            before.append(state[0])
            state = move @ state
            state[:, 2 + j] += eps / 2 * nbeta * h
            state[:, 2 + k + j] += np.sqrt(friction * eps)
        means = np.full((k, k), -variance / (n - 1))
        np.fill_diagonal(means, variance * (n - batch_size) / (batch_size * (n - 1)))
        noise = np.block([[means, np.zeros((k, k))], [np.zeros((k, k)), np.eye(k)]])
        cov = laws.linear_law(state[:, :2], np.zeros(2), np.zeros(2))[1]
        heat = state[:, 2:] @ noise @ state[:, 2:].T
        square = np.kron(state[:, :2], state[:, :2])
        cov = np.linalg.solve(np.eye(4) - square, heat.reshape(4)).reshape(2, 2)
        whole = np.block([[cov, np.zeros((2, 2 * k))], [np.zeros((2 * k, 2)), noise]])
        energy = [w @ whole @ w / 2 - w @ whole[:, 2 + j] for j, w in enumerate(before)]
        total += nbeta * h * np.mean(energy)
    return total


def test_closed_forms_of_all_data():
    oracle, nbeta, gamma = oracles.quadratic(H, noise=1.0, n_samples=50), 80.0, 7.0
    h = np.array(H)
    a = nbeta * h + gamma
    assert (oracle.llc, oracle.multiplicity) == (Fraction(3, 2), 1)
    limit = (nbeta * h / a).sum() / 2
    assert oracle.exact(nbeta, gamma) == pytest.approx(limit, rel=1e-12)
    assert oracle.exact(nbeta) == pytest.approx(1.5, rel=1e-12)
    for lr in (1e-6, 0.004, 0.03):
        for friction in (1.0, 0.2):
            exact = (nbeta * h / (a * (1 - lr * a / (4 * (2 - friction))))).sum() / 2
            found = oracle.exact(nbeta, gamma, lr=lr, friction=friction, batch_size=50)
            assert found == pytest.approx(exact, rel=1e-9)
            assert oracle.exact(nbeta, gamma, lr=lr, friction=friction) == found


def test_independent_minibatches_heat_as_the_textbook_says():
    """Variance (1 + eps nb^2 h^2 sigma^2 / (4 B)) / (a (1 - eps a/4)), and no owed term."""
    oracle, nbeta, gamma, lr = oracles.quadratic([0.7], noise=2.0, n_samples=90), 60.0, 3.0, 0.01
    a, s2 = nbeta * 0.7 + gamma, oracle.variances.item()
    variance = (1 + lr * (nbeta * 0.7) ** 2 * s2 / (4 * 9)) / (a * (1 - lr * a / 4))
    found = oracle.exact(nbeta, gamma, lr=lr, batch_size=9, replacement=True)
    assert found == pytest.approx(nbeta * 0.7 * variance / 2, rel=1e-9)


@pytest.mark.parametrize("friction", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 25, 49, 50])
def test_epochs_as_one_linear_map(batch_size, friction):
    oracle = oracles.quadratic(H, noise=1.0, n_samples=50, seed=2)
    settings = {"lr": 0.01, "friction": friction, "batch_size": batch_size}
    expected = by_whole_epochs(oracle, 40.0, 5.0, 0.01, friction, batch_size)
    assert oracle.exact(40.0, 5.0, **settings) == pytest.approx(expected, rel=1e-9)


def test_step_sizes_of_each_weight():
    """Weights are independent: the sum over them, each with its own step."""
    lrs = [0.01, 0.002, 0.03, 1.0]
    whole = oracles.quadratic(H, noise=1.0, n_samples=40)
    found = whole.exact(50.0, 2.0, lr=lrs, batch_size=8)
    parts = 0.0
    for i, lr in enumerate(lrs):
        only = [h if i == j else 0.0 for j, h in enumerate(H)]
        part = oracles.quadratic(only, noise=1.0, n_samples=40)
        parts += part.exact(50.0, 2.0, lr=lr, batch_size=8)
    assert found == pytest.approx(parts, rel=1e-12)


FROZEN = partial(RMSpropSGLD, eps=1.0, adapt_steps=0)  # G = 1/2
CHAINS = {
    "all data": (SGLD, 0.01, {"batch_size": 200}, {}),
    "minibatches": (SGLD, 4e-3, {"batch_size": 10}, {}),
    "large minibatches with a remainder": (SGLD, 8e-3, {"batch_size": 80}, {}),
    "with replacement": (SGLD, 4e-3, {"batch_size": 10, "replacement": True}, {}),
    "momentum": (partial(SGHMC, friction=0.3), 4e-3, {"batch_size": 10}, {"friction": 0.3}),
    "preconditioned": (FROZEN, 8e-3, {"batch_size": 10}, {"lr": 4e-3}),
}


@pytest.mark.parametrize("case", CHAINS)
def test_chains_converge_to_it(case):
    """Closely enough to tell it from the value of small steps."""
    sampler, lr, batches, truth = CHAINS[case]
    oracle = oracles.quadratic([1.0, 0.3, 0.05] * 70, noise=1.0, n_samples=200)
    estimator = LLCEstimator(
        sampler=sampler,
        lr=lr,
        nbeta=100.0,
        localization=5.0,
        num_chains=6,
        num_burnin_steps=600,
        num_draws=1600,
        seed=4,
        progress=False,
        **batches,
    )
    estimator.fit(oracle.model, oracle.data, oracle.loss_fn)
    exact = oracle.exact(100.0, 5.0, **{"lr": lr} | batches | truth)
    assert estimator.llc_sem_ < 0.005 * exact
    assert abs(estimator.llc_ - exact) < 4 * estimator.llc_sem_
    assert exact - oracle.exact(100.0, 5.0) > 10 * estimator.llc_sem_


def test_minibatches_of_an_epoch_are_not_independent_ones():
    """What an epoch's order does to the estimate shows in chains: the case above would not pass."""
    oracle = oracles.quadratic([1.0, 0.3, 0.05] * 70, noise=1.0, n_samples=200)
    ordered, drawn = (
        oracle.exact(100.0, 5.0, lr=4e-3, batch_size=10, replacement=r) for r in (False, True)
    )
    assert ordered / drawn > 1.1


def test_the_model_is_the_loss():
    oracle = oracles.quadratic(H, noise=0.5, n_samples=30)
    with torch.no_grad():
        oracle.model.w += torch.tensor([1.0, 2.0, 3.0, 4.0])
        found = oracle.loss_fn(oracle.model(oracle.data.tensors[0]), oracle.data.tensors[1]).item()
    h, w = np.array(H), np.array([1.0, 2.0, 3.0, 4.0])
    assert found == pytest.approx((h * (w**2 + oracle.variances)).sum() / 2, rel=1e-5)
    np.testing.assert_allclose(oracle.data.tensors[0].double().mean(0), 0, atol=1e-8)


def test_bad_input_is_refused():
    oracle = oracles.quadratic(H, n_samples=50)
    with refuses(ValueError, "lr must be < 4 (2 - friction) / (nbeta h + localization)", "0.0392"):
        oracle.exact(100.0, 2.0, lr=0.04)
    assert oracle.exact(100.0, 2.0, lr=0.04, friction=0.5) > 0
    with refuses(ValueError, "lr must be one number or 4, one for each weight, got 3"):
        oracle.exact(100.0, lr=[0.1] * 3)
    with refuses(ValueError, "lr[1] must be finite and > 0, got 0"):
        oracle.exact(100.0, lr=[0.01, 0, 0.01, 0.01])
    with refuses(ValueError, "friction must be > 0 and <= 1, got 1.5"):
        oracle.exact(100.0, lr=0.01, friction=1.5)
    with refuses(ValueError, "batch_size must be >= 1 and < 51, got 51"):
        oracle.exact(100.0, lr=0.01, batch_size=51)
    with refuses(ValueError, "nbeta must be finite and > 0, got 0"):
        oracle.exact(0)
    with refuses(ValueError, "localization must be finite and >= 0, got -1"):
        oracle.exact(1.0, -1)
    with refuses(ValueError, "curvatures[1] must be finite and >= 0, got -1.0"):
        oracles.quadratic([1.0, -1.0])
    with refuses(ValueError, "curvatures must be one or more, got none"):
        oracles.quadratic([])
    with refuses(ValueError, "n_samples must be >= 2, got 1"):
        oracles.quadratic([1.0], n_samples=1)
