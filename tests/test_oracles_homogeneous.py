"""Sums of powers and quasi-homogeneous polynomials."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from fastllc import oracles
from fastllc.oracles.homogeneous import law_of_powers
from refusals import refuses


@pytest.mark.parametrize("nbeta", [1e-2, 1.0, 145.0, 1e6, 1e12])
def test_without_localization_the_coefficient_is_exact_at_every_temperature(nbeta):
    oracle = oracles.separable([1, 2, 3, 10])
    assert oracle.llc == Fraction(1, 2) + Fraction(1, 4) + Fraction(1, 6) + Fraction(1, 20)
    assert oracle.exact(nbeta) == pytest.approx(float(oracle.llc), rel=1e-10)


@pytest.mark.parametrize("ratio", [1e-4, 0.1, 1.0, 10.0, 1e4])
def test_a_square_under_localization_is_its_closed_form(ratio):
    """1/2 nb h / (nb h + gamma), L = 1/2 h w^2."""
    found = law_of_powers([1, 1], [0.5, 2.0], 30.0, 30.0 * ratio)
    exact = 0.5 / (1 + ratio) + 0.5 * 4 / (4 + ratio)
    assert found == pytest.approx(exact, rel=1e-10)


def test_a_quartic_under_localization_obeys_its_own_virial_identity():
    """E[w U'] = 1: 4 nb E[w^4] + gamma E[w^2] = 1; d(log Z)/d(gamma) gives E[w^2] again."""
    nbeta, gamma = 20.0, 5.0
    w = np.linspace(-4, 4, 400_001)
    density = np.exp(-nbeta * w**4 - gamma / 2 * w**2)
    second = (w**2 * density).sum() / density.sum()
    assert 4 * law_of_powers([2], [1.0], nbeta, gamma) + gamma * second == pytest.approx(1, 1e-10)


def test_a_polynomial_is_the_sum_of_powers_where_it_is_one():
    nbeta, gamma = 70.0, 9.0
    both = oracles.quasi_homogeneous({(2, 0): 1.0, (0, 4): 1.0}), oracles.separable([1, 2])
    found, expected = (oracle.exact(nbeta, gamma) for oracle in both)
    assert found == pytest.approx(expected, rel=1e-10)
    three = oracles.quasi_homogeneous({(2, 0, 0): 1.0, (0, 4, 0): 1.0, (0, 0, 6): 1.0})
    expected = oracles.separable([1, 2, 3]).exact(nbeta, gamma)
    assert three.exact(nbeta, gamma) == pytest.approx(expected, rel=1e-9)
    assert both[0].llc == both[1].llc == Fraction(3, 4)


def test_a_mixed_polynomial_on_a_plain_grid():
    """x^4 + 3 x^2 y^4 + 2 y^8, weights 1/4 and 1/8."""
    oracle = oracles.quasi_homogeneous({(4, 0): 1.0, (2, 4): 3.0, (0, 8): 2.0})
    nbeta, gamma = 40.0, 2.0
    x, y = np.meshgrid(np.linspace(-3, 3, 3001), np.linspace(-3, 3, 3001))
    energy = nbeta * (x**4 + 3 * x**2 * y**4 + 2 * y**8)
    for g in (gamma, 0.0):
        density = np.exp(-energy - g / 2 * (x**2 + y**2))
        expected = (energy * density).sum() / density.sum()
        assert oracle.exact(nbeta, g) == pytest.approx(expected, rel=1e-8)
    assert oracle.exact(nbeta) == float(oracle.llc) == 0.375


def test_rings_of_degree_four_have_the_coefficient_of_their_scaling():
    """(x^2 + y^2)^2 has the volume pi t^(1/2)."""
    oracle = oracles.quasi_homogeneous({(4, 0): 1.0, (2, 2): 2.0, (0, 4): 1.0})
    assert (oracle.llc, oracle.multiplicity) == (Fraction(1, 2), 1)
    w = torch.tensor([0.6, 0.8])
    with torch.no_grad():
        oracle.model.w.copy_(w)
        assert oracle.loss_fn(oracle.model(oracle.data.tensors[0]), None).item() == pytest.approx(1)


def test_more_weights_than_integrals_can_take():
    terms = {tuple(2 * (i == j) for j in range(4)): 1.0 for i in range(4)}
    oracle = oracles.quasi_homogeneous(terms)
    assert oracle.exact(10.0) == 2.0
    with refuses(ValueError, "localization must be 0 for more than 3 weights, got 1.0"):
        oracle.exact(10.0, 1.0)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({}, "terms must be one or more"),
        ({(2, 0): 1.0, (0, 3): 1.0}, "2 even exponents >= 0, not all of them 0, got (0, 3)"),
        ({(2, 0): 1.0, (0, -2): 1.0}, "got (0, -2)"),
        ({(2, 0): 1.0, (2,): 1.0}, "got (2,)"),
        ({(2, 0): 1.0, (0, 0): 1.0}, "got (0, 0)"),
        ({(2, 0): -1.0, (0, 4): 1.0}, "terms[(2, 0)] must be finite and > 0, got -1.0"),
        ({(2, 0): 1.0, (2, 2): 1.0}, "a power alone of each weight"),
        ({(2, 0): 1.0, (0, 4): 1.0, (2, 2): 1.0}, "got (2, 2) of degree 3/2"),
        ({(2, 0): 1.0, (4, 0): 1.0, (0, 2): 1.0}, "got (4, 0) of degree 2"),
    ],
)
def test_polynomials_that_do_not_scale_are_refused(terms, words):
    with refuses(ValueError, words):
        oracles.quasi_homogeneous(terms)


def test_bad_powers_are_refused():
    with refuses(ValueError, "powers[1] must be >= 1, got 0"):
        oracles.separable([1, 0])
    with refuses(TypeError, "powers[0] must be an int, got 1.5"):
        oracles.separable([1.5])
    with refuses(ValueError, "powers must be one or more, got none"):
        oracles.separable([])


def test_the_volume_of_a_polynomial_is_of_its_coefficient():
    """V(t) ~ t^lambda, by the definition of the learning coefficient."""
    oracle = oracles.quasi_homogeneous({(4, 0): 1.0, (2, 4): 3.0, (0, 8): 2.0})
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, 2_000_000))
    energy = x**4 + 3 * x**2 * y**4 + 2 * y**8
    counts = [(energy < t).sum() for t in (1e-1, 1e-5)]
    found = math.log(counts[0] / counts[1]) / math.log(1e4)
    error = 1 / math.sqrt(counts[1]) / math.log(1e4)
    assert abs(found - float(oracle.llc)) < 4 * error
