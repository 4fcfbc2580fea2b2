"""MALA has no bias of the step size, at steps where that of SGLD is tens of percent.

Chains are stacked, of a few weights each: means of chains have plain standard errors.
"""

import math

import numpy as np
import pytest
import torch

from fastllc import MALA, SGLD, DivergenceWarning, sample
from zoo import Point

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = torch.zeros(4, 1), torch.zeros(4)
SIGMAS = 4


def estimate(sampler, start, evaluate, nbeta, **settings):
    """nbeta E[L], its standard error, and the mean probability of acceptance."""
    trace = sample(
        Point(start),
        DATA,
        evaluate=evaluate,
        sampler=sampler,
        nbeta=nbeta,
        init_loss=0.0,
        save_acceptance=True,
        engine="vectorised",
        seed=0,
        progress=False,
        **settings,
    )
    assert sampler is SGLD or (trace["diverged_at"] == -1).all()
    draws = trace["steps/loss"].values[..., settings["num_burnin_steps"] :]
    means = nbeta * draws.mean(-1, dtype=np.float64).ravel()
    error = means.std(ddof=1) / math.sqrt(len(means))
    return means.mean(), error, float(trace["metrics/mala_acceptance"].mean())


@pytest.mark.parametrize("noise_level", [1.0, 1.4])
def test_quadratics_have_the_law_of_continuous_time(noise_level):
    """1/2 sum nb h / (nb h + gamma); at any noise level, which scales the proposals alone."""
    h = torch.tensor([1.0, 0.6, 0.3, 0.1])
    nb, gamma, eps = 100.0, 4.0, 0.016
    a = nb * h.numpy() + gamma
    exact = (0.5 * nb * h.numpy() / a).sum()
    biased = (0.5 * nb * h.numpy() / (a * (1 - eps * a / 4))).sum() * noise_level**2
    settings = {
        "start": torch.zeros(4),
        "evaluate": lambda m, _: 0.5 * (h * m.w**2).sum(),
        "nbeta": nb,
        "lr": eps,
        "localization": gamma,
        "noise_level": noise_level,
        "num_chains": 400,
        "num_burnin_steps": 300,
        "num_draws": 1000,
    }
    found, error, acceptance = estimate(MALA, **settings)
    assert biased > 1.25 * exact
    assert error < 0.005 * exact
    assert abs(found - exact) < SIGMAS * error
    assert 0.3 < acceptance < 0.9
    found, error, _ = estimate(SGLD, **settings)
    assert abs(found - biased) < SIGMAS * error


@pytest.mark.parametrize("nbeta", [10.0, 1000.0])
def test_the_quartic_obeys_the_virial_theorem(nbeta):
    """nbeta E[w^4] = 1/4 at every nbeta, with a step in which SGLD loses chains."""
    settings = {
        "start": torch.zeros(2),
        "evaluate": lambda m, _: (m.w**4).sum(),
        "nbeta": nbeta,
        "lr": 0.2 / math.sqrt(nbeta),
        "localization": 0.0,
        "num_chains": 1000,
        "num_burnin_steps": 200,
        "num_draws": 600,
    }
    found, error, acceptance = estimate(MALA, **settings)
    assert error < 0.005 * 0.5
    assert abs(found - 0.5) < SIGMAS * error
    assert 0.3 < acceptance < 0.98
    with pytest.warns(DivergenceWarning, match="of 1000 chains diverged"):
        estimate(SGLD, **settings)


def test_a_normal_crossing_by_quadrature():
    """nbeta E[w1^2 w2^2] under exp(-nbeta w1^2 w2^2 - |w|^2/2): the integral over w2 is Gaussian.

    Chains start from draws of that law, which is what they have to keep: far out in the arms steps
    of any size are refused for long.
    """
    nbeta, count = 145.0, 2000
    w = np.linspace(-9, 9, 1_800_001)
    stiffness = 1 + 2 * nbeta * w**2
    density = np.exp(-0.5 * w**2) / np.sqrt(stiffness)
    exact = (density * nbeta * w**2 / stiffness).sum() / density.sum()
    assert exact == pytest.approx(0.3614, abs=1e-4)
    generator = np.random.default_rng(1)
    first = np.interp(generator.random(count), density.cumsum() / density.sum(), w)
    second = generator.standard_normal(count) / np.sqrt(1 + 2 * nbeta * first**2)
    starts = torch.from_numpy(np.stack([first, second], 1)).float()
    settings = {
        "start": torch.zeros(2),
        "evaluate": lambda m, _: m.w.square().prod(),
        "nbeta": nbeta,
        "lr": 0.01,
        "localization": 0.0,
        "weight_decay": 1.0,
        "checkpoints": [{"w": start} for start in starts],
        "num_chains": 1,
        "num_burnin_steps": 500,
        "num_draws": 1000,
    }
    found, error, acceptance = estimate(MALA, **settings)
    assert error < 0.01 * exact
    assert abs(found - exact) < SIGMAS * error
    assert 0.3 < acceptance < 0.9
    with pytest.warns(DivergenceWarning, match="of 2000 chains diverged"):
        estimate(SGLD, **settings)


def test_a_cliff_cuts_the_law_off_and_loses_no_chain():
    """Where the loss is not a number there is no mass.

    With the loss -w on w < 0 the law is exp(nbeta w - a (w + 0.1)^2 / 2) there: a Gaussian around
    nbeta/a - 0.1, cut off at 0, whose mean is known.
    """
    nbeta, a = 1.0, 25.0

    def evaluate(model, _):
        return torch.where(model.w < 0, -model.w, torch.nan).sum()

    start = torch.full((1,), -0.1)
    settings = {"lr": 0.04, "localization": a, "num_chains": 400}
    found, error, _ = estimate(
        MALA, start, evaluate, nbeta, num_burnin_steps=200, num_draws=1000, **settings
    )
    center, width = nbeta / a - 0.1, a**-0.5
    z = -center / width
    phi = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    mean = center - width * phi / (0.5 * math.erfc(-z / math.sqrt(2)))
    assert error < 0.01 * -mean
    assert abs(found + mean) < SIGMAS * error
