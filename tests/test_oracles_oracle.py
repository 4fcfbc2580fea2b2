"""What all oracles promise: a minimum, data that an estimator takes, and errors that say what."""

import copy

import pytest
import torch

from fastllc import LLCEstimator, oracles
from refusals import refuses

MAKE = {
    "quadratic": lambda: oracles.quadratic([1.0, 0.0, 2.0], noise=0.5),
    "separable": lambda: oracles.separable([1, 2, 5]),
    "quasi-homogeneous": lambda: oracles.quasi_homogeneous({(4, 0): 2.0, (2, 2): 1.0, (0, 4): 1.0}),
    "normal crossing": lambda: oracles.normal_crossing([1, 2, 0]),
    "off its origin": lambda: oracles.normal_crossing([1, 2], at=[0.0, 0.7]),
    "ring": lambda: oracles.ring(4),
    "rescaling": lambda: oracles.rescaling(2.0),
    "parabola": lambda: oracles.polynomial_pair()[0],
    "cubed slope": lambda: oracles.polynomial_pair()[1],
    "deep linear": lambda: oracles.deep_linear([4, 3, 5, 2], 2),
    "published": lambda: oracles.draw_class("1K", 3, aligned=False),
}


def loss(oracle, move=0.0):
    model = copy.deepcopy(oracle.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p += move * torch.randn(p.shape, generator=generator)
    inputs, targets = oracle.data.tensors
    value = oracle.loss_fn(model(inputs), targets)
    value.backward()
    return value.item(), max(p.grad.abs().max().item() for p in model.parameters())


@pytest.mark.parametrize("name", MAKE)
def test_it_is_a_minimum(name):
    oracle = MAKE[name]()
    least, slope = loss(oracle)
    assert slope < 1e-6
    assert all(loss(oracle, move)[0] > least for move in (0.1, 0.3, 1.0))


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
@pytest.mark.parametrize("name", MAKE)
def test_an_estimator_takes_it_as_it_is(name, engine):
    oracle = MAKE[name]()
    before = [p.detach().clone() for p in oracle.model.parameters()]
    estimator = LLCEstimator(
        lr=1e-5,
        nbeta=10.0,
        localization=1.0,
        num_chains=2,
        num_draws=5,
        num_burnin_steps=1,
        engine=engine,
        seed=0,
        progress=False,
    ).fit(oracle.model, oracle.data, oracle.loss_fn)
    assert estimator.init_loss_ == pytest.approx(loss(oracle)[0], rel=1e-5, abs=1e-12)
    assert estimator.trace_.attrs["engine"] == engine
    assert (estimator.trace_["steps"]["loss"].values[:, 1:] > 0).all()
    assert all(torch.equal(p, b) for p, b in zip(oracle.model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", [n for n in MAKE if n not in ("deep linear", "published")])
def test_the_truth_at_finite_temperature_goes_to_the_coefficient(name):
    """Like (m - 1) / log nbeta where m > 1; faster elsewhere.

    With weak localization nothing holds the one off its origin there: the limit is that of the most
    singular point.
    """
    oracle = MAKE[name]()
    llc = 0.25 if name == "off its origin" else float(oracle.llc)
    apart = [abs(oracle.exact(nbeta, 1.0) - llc) for nbeta in (1e3, 1e6, 1e9)]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < (0.05 if oracle.multiplicity > 1 else 0.01) * llc
    # Localization that is strong against nbeta holds weights where L = L(w*).
    assert oracle.exact(1.0, 1e6) < 1e-4


@pytest.mark.parametrize("name", [n for n in MAKE if n != "quadratic"])
def test_what_is_not_known_is_refused(name):
    oracle = MAKE[name]()
    with refuses(ValueError, f"lr must be None: its bias is not known for {oracle.name}, got 0.1"):
        oracle.exact(1.0, lr=0.1)
    with refuses(ValueError, "nbeta must be finite and > 0, got 0.0"):
        oracle.exact(0.0)
    with refuses(ValueError, "localization must be finite and >= 0, got -2.0"):
        oracle.exact(1.0, -2.0)


def test_where_no_posterior_is_proper():
    for name in ("normal crossing", "off its origin", "rescaling"):
        with refuses(ValueError, "localization must be > 0", "the posterior is not proper"):
            MAKE[name]().exact(100.0)
