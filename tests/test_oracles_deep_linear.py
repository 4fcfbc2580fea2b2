"""Deep linear networks: the ranks they promise, and that half the Jacobian's bounds the LLC."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import laws
from fastllc import LLCEstimator, oracles
from refusals import refuses

one_thread = laws.one_thread


def product(layers):
    return layers[0] if len(layers) == 1 else torch.linalg.multi_dot(layers[::-1])


def brute_force_rank(oracle):
    """Of the whole Jacobian of the product, by autograd."""
    layers = tuple(oracle.layers())
    jacobian = torch.autograd.functional.jacobian(lambda *w: product(w).flatten(), layers)
    whole = torch.cat([j.flatten(1) for j in jacobian], 1)
    return int(torch.linalg.matrix_rank(whole, rtol=1e-5))


@st.composite
def networks(draw, width=7, layers=5):
    widths = draw(st.lists(st.integers(1, width), min_size=2, max_size=layers))
    return widths, draw(st.integers(0, min(widths))), draw(st.integers(0, 100))


@given(networks())
@settings(max_examples=50, deadline=None)
def test_all_products_of_neighbouring_layers_have_the_rank(network):
    widths, rank, seed = network
    oracle = oracles.deep_linear(widths, rank, seed=seed, n_samples=10)
    layers = oracle.layers()
    assert [tuple(w.shape) for w in layers] == list(zip(widths[1:], widths, strict=False))
    for i in range(len(layers)):
        for j in range(i + 1, len(layers) + 1):
            values = torch.linalg.svdvals(product(layers[i:j]))
            # The singular values of a layer are in [1/2, 3/2].
            assert int((values > 0.4 ** (j - i)).sum()) == rank
            assert bool((values[rank:] < 1e-5).all())


@given(networks())
@settings(max_examples=50, deadline=None)
def test_the_rank_of_the_jacobian_is_that_of_matrices_of_this_rank(network):
    widths, rank, seed = network
    oracle = oracles.deep_linear(widths, rank, seed=seed, n_samples=10)
    h, n, layers = widths[0], widths[-1], len(widths) - 1
    expected = rank * (h + n - rank) if layers > 1 else h * n
    assert oracle.jacobian_rank() == brute_force_rank(oracle) == expected
    assert expected <= 2 * oracle.llc


def test_the_minimum_is_one():
    """Zero loss and gradient on all data, and a loss around it."""
    oracle = oracles.deep_linear([6, 4, 5, 3], 2)
    loss = oracle.loss_fn(oracle.model(oracle.data.tensors[0]), oracle.data.tensors[1])
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad.abs().max() == 0 for p in oracle.model.parameters())
    assert oracle.data.tensors[0].min() < -9
    assert oracle.data.tensors[0].max() > 9
    with torch.no_grad():
        for p in oracle.model.parameters():
            p += 0.01
    assert oracle.loss_fn(oracle.model(oracle.data.tensors[0]), oracle.data.tensors[1]) > 1e-4


def test_the_loss_is_the_mean_over_samples_and_outputs():
    oracle = oracles.reduced_rank(3, 2, 4, 1, n_samples=5)
    shifted = oracle.data.tensors[1] + 2.0
    assert oracle.loss_fn(oracle.model(oracle.data.tensors[0]), shifted).item() == pytest.approx(4)


def test_a_seed_is_a_network():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same, other = (oracles.deep_linear([5, 4, 3], 2, seed=s) for s in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(first.layers(), same.layers(), other.layers(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert torch.equal(first.data.tensors[0], same.data.tensors[0])


def test_chains_at_a_minimum_without_further_degeneracy():
    """Where the hidden layer has the rank, the Hessian has rank 2 lambda: chains are a quadratic's.

    They converge to the closed form for its eigenvalues, with the step's bias.
    """
    oracle = oracles.reduced_rank(5, 3, 5, 3, n_samples=100)
    x, y = (t.double() for t in oracle.data.tensors)
    layers = oracle.layers()

    def loss(flat):
        first, second = flat.split([15, 15])
        return oracle.loss_fn(x @ first.view(3, 5).T @ second.view(5, 3).T, y)

    point = torch.cat([w.flatten() for w in layers])
    h = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, point))
    h = h[h > 1e-4 * h.max()]
    assert len(h) == 2 * oracle.llc == oracle.jacobian_rank()
    nbeta, gamma, lr = 1e6, 1e3, 1e-8
    a = nbeta * h + gamma
    exact = (0.5 * nbeta * h / (a * (1 - lr * a / 4))).sum().item()
    estimator = LLCEstimator(
        lr=lr,
        nbeta=nbeta,
        localization=gamma,
        num_chains=20,
        num_burnin_steps=1000,
        num_draws=2000,
        seed=0,
        progress=False,
    ).fit(oracle.model, oracle.data, oracle.loss_fn)
    assert estimator.llc_sem_ < 0.01 * exact
    assert abs(estimator.llc_ - exact) < 4 * estimator.llc_sem_


def test_reduced_rank_is_one_hidden_layer():
    oracle = oracles.reduced_rank(5, 3, 5, 2)
    assert (oracle.llc, oracle.multiplicity, oracle.rank) == (Fraction(19, 2), 2, 2)
    assert [tuple(w.shape) for w in oracle.layers()] == [(3, 5), (5, 3)]


def test_weights_of_too_large_a_jacobian_are_noticed():
    oracle = oracles.deep_linear([6, 6, 6], 2)
    oracle.check()
    with torch.no_grad():
        for p in oracle.model.parameters():
            p += 0.1 * torch.eye(6)
    with refuses(ArithmeticError, "got 36 / 2"):
        oracle.check()


def test_no_value_at_finite_temperature_is_claimed():
    with refuses(ValueError, "unknown for deep linear network 5-3-5 of rank 2"):
        oracles.reduced_rank(5, 3, 5, 2).exact(100.0)


def test_bad_input_is_refused():
    with refuses(ValueError, "n_samples must be >= 5, got 4"):
        oracles.deep_linear([5, 3], 2, n_samples=4)
    with refuses(ValueError, "seed must be in [0, 2**63), got -1"):
        oracles.deep_linear([5, 3], 2, seed=-1)
    with refuses(ValueError, "rank must be >= 0 and < 4, got 4"):
        oracles.deep_linear([5, 3], 4)
