"""The virial identity nbeta E[L] = 1/4 of L = w^4, in every sampler of the posterior.

Stationarity of w^2 and of the momentum gives identities that the chain itself obeys, whatever its
step; to first order in the step they give the bias of nbeta E[L].
"""

import math

import pytest
import torch

import laws
from fastllc import SGHMC, SGLD, SGNHT, AdamSGLD, RMSpropSGLD
from laws import QUARTIC_SIXTH, SIGMAS, check_mean, quartic_draws, run_quartic

one_thread = laws.one_thread

LR, N, FRICTION, BETA, DELTA = 0.01, 100_000, 0.2, 0.6, 0.25
METRIC = 1 / (1 + DELTA)  # never adapted: v stays 1

# The sampler, and nbeta E[L] to first order in its step.
SAMPLERS = {
    "SGLD": (lambda p: SGLD(p, lr=LR, seed=1), 0.25 + LR * QUARTIC_SIXTH),
    "RMSpropSGLD": (
        lambda p: RMSpropSGLD(p, lr=LR, eps=DELTA, adapt_steps=0, seed=2),
        0.25 + LR * METRIC * QUARTIC_SIXTH,
    ),
    "AdamSGLD": (
        lambda p: AdamSGLD(p, lr=LR, betas=(BETA, 0.9), eps=DELTA, adapt_steps=0, seed=3),
        0.25 + LR * METRIC * (1 + BETA) / (1 - BETA) * QUARTIC_SIXTH,
    ),
    "SGHMC": (
        lambda p: SGHMC(p, lr=LR, friction=FRICTION, seed=4),
        0.25 + LR / (2 - FRICTION) * QUARTIC_SIXTH,
    ),
    # 2 A = xi (2 - xi) makes xi equal FRICTION
    "SGNHT": (
        lambda p: SGNHT(p, lr=LR, diffusion_factor=FRICTION - FRICTION**2 / 2, seed=5),
        0.25 * (1 - FRICTION / 2),
    ),
}


def settled(name):
    """Weights before and after the last step, and the sampler."""
    param = quartic_draws(N, seed=9)
    sampler = SAMPLERS[name][0]([param])
    run_quartic([param], sampler, 500)
    before = param.clone()
    run_quartic([param], sampler, 1)
    return before, param, sampler


@pytest.fixture(scope="module")
def found():
    """nbeta L of every chain of every sampler."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: settled(name) for name in SAMPLERS}
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_energy_of_a_quartic(found, name):
    """1/4 with its bias of first order; J = E[U'^2] = 16 E[w^6], and 4 E[L] = E[w U'].

    SGLD: E[w U'] = 1 + eps J/4. A frozen metric: eps G for eps. SGHMC: eps / (2 - alpha) for eps.
    AdamSGLD: a gradient that is t steps old has lost eps G J t/2 of E[w U'], and the mean gradient
    is b / (1 - b) steps old, so that it takes (1 + b) / (1 - b) times the eps of RMSpropSGLD: 19
    times with b = 0.9. SGNHT: see below.
    """
    _, param, _ = found[name]
    check_mean(param**4, SAMPLERS[name][1])


def test_the_samplers_agree(found):
    """Each two of them, their biases taken off, within their standard errors."""
    means = {}
    for name, (_, param, _) in found.items():
        energy = param**4 - (SAMPLERS[name][1] - 0.25)
        means[name] = energy.mean().item(), energy.std().item() / math.sqrt(N)
    for mean, error in means.values():
        for other, its_error in means.values():
            assert abs(mean - other) <= SIGMAS * math.hypot(error, its_error)


@pytest.mark.parametrize(("name", "metric"), [("SGLD", 1.0), ("RMSpropSGLD", METRIC)])
def test_the_identity_of_chains_without_momentum(found, name, metric):
    """Stationarity of w^2: E[w U'] = 1 + eps G/4 E[U'^2]."""
    _, w, _ = found[name]
    slope = 4 * w**3
    check_mean(w * slope - LR * metric / 4 * slope**2, 1.0)


def test_the_identity_of_the_mean_gradient(found):
    """The same with the mean gradient m' that a step takes: E[w m'] = 1 + eps G/4 E[m'^2]."""
    before, param, sampler = found["AdamSGLD"]
    m = sampler.state[param]["momentum"]
    check_mean(before * m - LR * METRIC / 4 * m**2, 1.0)


def test_the_identity_of_friction(found):
    """Stationarity of w^2 and of w m, with 2 E[w m] = E[m^2]: eps E[w U'] = (2 - alpha) E[m^2]."""
    _, w, sampler = found["SGHMC"]
    m = sampler.state[w]["momentum"]
    check_mean(4 * w**4 - (2 - FRICTION) / LR * m**2, 0.0)


def test_a_thermostat_makes_the_energy_exact_but_for_its_friction(found):
    """SGNHT holds E[m^2] = eps, and so E[w U'] = 1 - xi/2 at any step and for any L.

    For a homogeneous L that is a learning coefficient too small by xi/2 and by nothing else.
    """
    _, w, sampler = found["SGNHT"]
    m = sampler.state[w]["momentum"]
    check_mean(m**2 / LR, 1.0)
    check_mean(4 * w**4, 1 - sampler.thermostat / 2)
