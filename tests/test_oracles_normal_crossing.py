"""Normal crossings: a table computed before, a plain grid, and chains."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import laws
from fastllc import LLCEstimator, oracles
from refusals import refuses

one_thread = laws.one_thread

NBETAS = [10, 145, 1e3, 1e4, 1e6, 1e9]
TABLE = {
    (1, 0): (Fraction(1, 2), 1, [0.4762, 0.4983, 0.4998, 0.5000, 0.5, 0.5]),
    (1, 1): (Fraction(1, 2), 2, [0.2903, 0.3614, 0.3903, 0.4123, 0.4375, 0.4564]),
    (2, 0): (Fraction(1, 4), 1, [0.2249, 0.2431, 0.2473, 0.2492, 0.2499, 0.25]),
    (1, 2): (Fraction(1, 4), 1, [0.1734, 0.2095, 0.2249, 0.2358, 0.2455, 0.2492]),
    (2, 2): (Fraction(1, 4), 2, [0.1225, 0.1505, 0.1652, 0.1785, 0.1960, 0.2107]),
    (1, 3): (Fraction(1, 6), 1, [0.1209, 0.1416, 0.1509, 0.1579, 0.1641, 0.1663]),
    (3, 3): (Fraction(1, 6), 2, [0.0746, 0.0893, 0.0979, 0.1065, 0.1190, 0.1307]),
}


def on_a_grid(powers, at, nbeta, gamma):
    """Midpoints in (w1, w2), where the loss is smooth on the grid's scale."""
    axes = [np.arange(-8, 8, 0.004) + 0.002] * 2
    w1, w2 = np.meshgrid(*axes, sparse=True)
    energy = nbeta * w1 ** (2 * powers[0]) * w2 ** (2 * powers[1])
    density = np.exp(-energy - gamma / 2 * ((w1 - at[0]) ** 2 + (w2 - at[1]) ** 2))
    return (energy * density).sum() / density.sum()


@pytest.mark.parametrize("powers", TABLE)
def test_the_table_to_its_digits(powers):
    llc, multiplicity, values = TABLE[powers]
    for k in (powers, powers[::-1]):
        oracle = oracles.normal_crossing(k)
        assert (oracle.llc, oracle.multiplicity) == (llc, multiplicity)
        for nbeta, value in zip(NBETAS, values, strict=True):
            assert abs(oracle.exact(nbeta, 1.0) - value) < 5.5e-5


@pytest.mark.parametrize(
    ("powers", "at", "nbeta", "gamma"),
    [
        ((1, 1), (0, 0), 30.0, 1.0),
        ((1, 2), (0, 0), 30.0, 3.0),
        ((1, 1), (0, 1.3), 20.0, 2.0),
        ((2, 1), (0, -1.3), 20.0, 2.0),
        ((2, 2), (0.7, 0), 50.0, 30.0),
        ((1, 3), (0, 0.2), 5.0, 0.9),
        ((1, 1), (0, 2.0), 500.0, 1000.0),
    ],
)
def test_a_plain_grid_agrees(powers, at, nbeta, gamma):
    oracle = oracles.normal_crossing(powers, at=at)
    expected = on_a_grid(powers, at, nbeta, gamma)
    assert oracle.exact(nbeta, gamma) == pytest.approx(expected, rel=1e-6)


def test_one_weight_is_a_power():
    for k in (1, 2, 5):
        crossing, power = oracles.normal_crossing([k, 0]), oracles.separable([k])
        for nbeta in (0.1, 145.0, 1e5):
            for gamma in (0.0, 0.3, 100.0):
                expected = power.exact(nbeta, gamma)
                assert crossing.exact(nbeta, gamma) == pytest.approx(expected, rel=1e-8)


def test_three_weights_are_a_mean_over_the_third():
    """Given w3, nbeta w3^2 is the inverse temperature of the other two."""
    nbeta, gamma, powers = 200.0, 1.0, [1, 2]
    three, two = oracles.normal_crossing([*powers, 1]), oracles.normal_crossing(powers)
    # Z2(s) from its logarithm's derivative: d log Z2 / d log s = -exact(s).
    logs = np.linspace(-14, 10, 4801)
    exact = np.array([two.exact(nbeta * np.exp(t), gamma) for t in logs])
    log_z = -np.concatenate([[0], np.cumsum((exact[1:] + exact[:-1]) / 2 * np.diff(logs))])
    w = np.exp(logs / 2)  # w3^2 = s
    weights = np.exp(log_z - gamma / 2 * w**2) * w
    expected = (weights * exact).sum() / weights.sum()
    # What lies below exp(-7) of w3 is left out: a share of 1e-3 of the prior with exact(0) = 0.
    assert three.exact(nbeta, gamma) == pytest.approx(expected, rel=3e-3)
    assert (three.llc, three.multiplicity) == (Fraction(1, 4), 1)


@pytest.mark.parametrize(
    ("powers", "at", "llc", "multiplicity"),
    [
        ((2, 2), (0.0, 0.0), Fraction(1, 4), 2),
        ((1, 2), (1.0, 0.0), Fraction(1, 4), 1),
        ((1, 2), (0.0, 1.0), Fraction(1, 2), 1),
        ((1, 2, 2), (0.0, 0.0, 1e-3), Fraction(1, 4), 1),
        ((3, 3, 3), (0.0, 0.0, 0.0), Fraction(1, 6), 3),
        ((0, 3), (0.0, 0.0), Fraction(1, 6), 1),
    ],
)
def test_the_local_order_decides(powers, at, llc, multiplicity):
    oracle = oracles.normal_crossing(powers, at=at)
    assert (oracle.llc, oracle.multiplicity) == (llc, multiplicity)


def test_held_off_the_singular_point_the_local_value_is_seen():
    """nbeta / gamma large, but gamma large enough for chains to stay near (1, 0)."""
    oracle = oracles.normal_crossing([1, 1], at=[1.0, 0.0])
    assert oracle.multiplicity == 1
    assert oracle.exact(1e7, 1e3) == pytest.approx(0.5, abs=1e-3)
    assert oracles.normal_crossing([1, 1]).exact(1e7, 1e3) < 0.45


def test_inputs_have_a_mean_square_of_one():
    oracle = oracles.normal_crossing([1, 2], n_samples=50, seed=3)
    x = oracle.data.tensors[0]
    assert x.double().square().mean().item() == pytest.approx(1, rel=1e-6)
    assert x.std() > 0.5
    with torch.no_grad():
        oracle.model.w.copy_(torch.tensor([3.0, 2.0]))
        assert oracle.loss_fn(oracle.model(x), oracle.data.tensors[1]).item() == pytest.approx(144)


def test_chains_converge_to_it_and_not_to_the_coefficient():
    """All data. The bias of these steps, 0.006 for each 1e-3 of lr, is below two errors."""
    oracle = oracles.normal_crossing([1, 1], n_samples=16)
    estimator = LLCEstimator(
        lr=5e-4,
        nbeta=145.0,
        localization=10.0,
        num_chains=1000,
        num_burnin_steps=2000,
        num_draws=2000,
        seed=1,
        progress=False,
    ).fit(oracle.model, oracle.data, oracle.loss_fn)
    exact = oracle.exact(145.0, 10.0)
    assert estimator.llc_sem_ < 0.015 * exact
    assert abs(estimator.llc_ - exact) < 4 * estimator.llc_sem_
    assert exact < 0.5 * float(oracle.llc)


def test_bad_input_is_refused():
    with refuses(ValueError, "at must be where the product is zero, got [1.0, 2.0]"):
        oracles.normal_crossing([1, 1], at=[1.0, 2.0])
    with refuses(ValueError, "at must be where the product is zero", "powers [0, 0]"):
        oracles.normal_crossing([0, 0])
    with refuses(ValueError, "at must be 2 numbers, one for each power, got 1"):
        oracles.normal_crossing([1, 1], at=[1.0])
    with refuses(ValueError, "powers[0] must be >= 0, got -1"):
        oracles.normal_crossing([-1, 1])
    with refuses(ValueError, "at[1] must be finite, got nan"):
        oracles.normal_crossing([1, 1], at=[0.0, float("nan")])
    with refuses(ValueError, "n_samples must be >= 1, got 0"):
        oracles.normal_crossing([1, 1], n_samples=0)
