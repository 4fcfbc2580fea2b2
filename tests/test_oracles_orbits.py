"""Orbits of symmetries, by plain grids and chains' own draws."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fastllc import oracles
from refusals import refuses


@pytest.mark.parametrize("gamma", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("nbeta", [2.0, 50.0])
def test_a_ring_in_the_plane_on_a_grid(nbeta, gamma):
    x, y = np.meshgrid(np.linspace(-4, 4, 4001), np.linspace(-4, 4, 4001), sparse=True)
    energy = nbeta * (x**2 + y**2 - 1) ** 2
    density = np.exp(-energy - gamma / 2 * ((x - 1) ** 2 + y**2))
    expected = (energy * density).sum() / density.sum()
    assert oracles.ring(2).exact(nbeta, gamma) == pytest.approx(expected, rel=1e-7)


def test_a_sphere_by_draws_of_the_prior():
    """d = 5, weighted draws of N(e1, 1/gamma)."""
    nbeta, gamma, d = 6.0, 4.0, 5
    w = np.random.default_rng(0).normal(0, gamma**-0.5, (1_000_000, d))
    w[:, 0] += 1
    energy = nbeta * ((w**2).sum(1) - 1) ** 2
    weights = np.exp(-energy)
    found = (weights * energy).sum() / weights.sum()
    error = np.sqrt((weights**2 * (energy - found) ** 2).sum()) / weights.sum()
    assert error < 2e-3
    assert abs(oracles.ring(d).exact(nbeta, gamma) - found) < 4 * error


@pytest.mark.parametrize("scale", [1.0, 0.4, 2.5])
@pytest.mark.parametrize(("nbeta", "gamma"), [(3.0, 1.0), (100.0, 2.0), (100.0, 80.0)])
def test_a_product_on_a_grid(scale, nbeta, gamma):
    reach = 10 / gamma**0.5
    x = scale + np.linspace(-reach, reach, 4001)[:, None]
    y = 1 / scale + np.linspace(-reach, reach, 4001)
    energy = nbeta * (x * y - 1) ** 2
    density = np.exp(-energy - gamma / 2 * ((x - scale) ** 2 + (y - 1 / scale) ** 2))
    expected = (energy * density).sum() / density.sum()
    assert oracles.rescaling(scale).exact(nbeta, gamma) == pytest.approx(expected, rel=1e-6)


def test_the_coefficient_is_the_same_all_along_an_orbit():
    for scale in (0.1, 1.0, 10.0):
        oracle = oracles.rescaling(scale)
        assert (oracle.llc, oracle.multiplicity) == (Fraction(1, 2), 1)
        assert oracle.exact(1e9, 1.0) == pytest.approx(0.5, abs=1e-4)
    for d in (2, 3, 30):
        oracle = oracles.ring(d)
        assert (oracle.llc, oracle.multiplicity) == (Fraction(1, 2), 1)
        assert oracle.exact(1e9, 1.0) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("oracle", [oracles.ring(4), oracles.rescaling(3.0)])
def test_the_minimum_is_not_degenerate_across_the_orbit(oracle):
    """The Hessian at w* has rank d - s = 1."""
    inputs, targets = oracle.data.tensors

    def loss(w):
        return oracle.loss_fn(
            torch.func.functional_call(oracle.model, {"w": w}, (inputs,)), targets
        )

    hessian = torch.autograd.functional.hessian(loss, oracle.model.w.detach())
    assert int(torch.linalg.matrix_rank(hessian, rtol=1e-5)) == 1


def test_bad_input_is_refused():
    with refuses(ValueError, "dimension must be >= 2, got 1"):
        oracles.ring(1)
    with refuses(ValueError, "scale must be finite and > 0, got 0.0"):
        oracles.rescaling(0.0)
