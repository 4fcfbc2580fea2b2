"""The laws that RMSpropSGLD and AdamSGLD settle to: frozen the posterior, adapting another one."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import laws
from fastllc import AdamSGLD, RMSpropSGLD
from laws import SIGMAS, chains, check_normal, linear_law, run

one_thread = laws.one_thread

STIFFNESS, N = [0.05, 0.4, 1.2, 2.0], 20_000
NBETA, GAMMA, DECAY, MINIMUM, ANCHOR, SIGMA = 10.0, 4.0, 1.5, 0.7, -0.3, 0.8
SETTINGS = {
    "nbeta": NBETA,
    "localization": GAMMA,
    "weight_decay": DECAY,
    "noise_level": SIGMA,
    "seed": 77,
}


def frozen_metric(sampler, param, alpha, updates, eps):
    """G of each coordinate, which its own noisy gradients have made, [stiffness][chain]."""
    v = sampler.state[param]["square_avg"].double().view(len(STIFFNESS), N)
    return 1 / ((v / (1 - alpha**updates)).sqrt() + eps)


@pytest.mark.parametrize("convention", ["paper", "devinterp"])
def test_a_frozen_metric_is_a_step_size_of_each_coordinate(convention):
    """SGLD's law with eps G for eps: the variance is sigma^2 / (a (1 - eps G a/4))."""
    lr, alpha, eps, updates = 0.05, 0.7, 0.2, 2
    h = chains(STIFFNESS, N)
    param = torch.full_like(h, ANCHOR)
    sampler = RMSpropSGLD(
        [param],
        lr=lr,
        alpha=alpha,
        eps=eps,
        convention=convention,
        adapt_steps=updates,
        **SETTINGS,
    )
    run(param, lambda w: h * (w - MINIMUM), sampler, 250)
    corrected = updates if convention == "paper" else math.inf
    metric = frozen_metric(sampler, param, alpha, corrected, eps)
    for w, g, hi in zip(param.view(-1, N), metric, STIFFNESS, strict=True):
        a = NBETA * hi + GAMMA + DECAY
        assert (1 - lr * g * a / 2).abs().max() ** 250 < 1e-3  # it has settled
        mean = (NBETA * hi * MINIMUM + GAMMA * ANCHOR) / a
        check_normal(w, mean, SIGMA**2 / (a * (1 - lr * g * a / 4)))


def test_a_frozen_metric_with_the_mean_gradient_as_drift():
    """With v frozen a step is a linear map of (w, m); G is read from the state.

    With e = eps G / 2 and b = beta_1: m' = b m + (1 - b) h (w - c),
    w' = w - e (nb m' + gamma (w - w0) + lambda w) + sqrt(eps G) sigma z.
    """
    lr, beta, alpha, eps, updates = 0.02, 0.6, 0.7, 0.2, 2
    h = chains(STIFFNESS, N)
    param = torch.full_like(h, ANCHOR)
    sampler = AdamSGLD(
        [param], lr=lr, betas=(beta, alpha), eps=eps, adapt_steps=updates, **SETTINGS
    )
    run(param, lambda w: h * (w - MINIMUM), sampler, 500)
    metric = frozen_metric(sampler, param, alpha, updates, eps)
    momentum = sampler.state[param]["momentum"].view(-1, N)
    for w, m, g, hi in zip(param.view(-1, N), momentum, metric, STIFFNESS, strict=True):
        e, zero = (lr * g / 2).numpy(), np.zeros(N)
        pull = GAMMA + DECAY
        matrix = np.array(
            [
                [1 - e * (NBETA * (1 - beta) * hi + pull), -e * NBETA * beta],
                [zero + (1 - beta) * hi, zero + beta],
            ]
        ).transpose(2, 0, 1)
        assert np.abs(np.linalg.eigvals(matrix)).max() ** 500 < 1e-3
        force = -(1 - beta) * hi * MINIMUM
        shift = np.array([e * (GAMMA * ANCHOR - NBETA * force), zero + force]).T
        noise = np.array([np.sqrt(2 * e) * SIGMA, zero]).T
        mean, covariance = (torch.from_numpy(x) for x in linear_law(matrix, shift, noise))
        check_normal(w, mean[:, 0], covariance[:, 0, 0])
        check_normal(m, mean[:, 1], covariance[:, 1, 1])
        a = NBETA * hi + pull
        assert mean[:, 0].numpy() == pytest.approx((NBETA * hi * MINIMUM + GAMMA * ANCHOR) / a)


def adapted(lr, alpha, adapt_steps=None, n=40_000):
    """Chains of L = w^2/2 at nb = 100 with delta = 0.1: nb L, its standard error, the sampler."""
    param = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, n))
    sampler = RMSpropSGLD(
        [param], lr=lr, alpha=alpha, eps=0.1, nbeta=100.0, adapt_steps=adapt_steps, seed=2
    )
    run(param, torch.clone, sampler, round(0.024 / lr))  # G is about 5: 6 relaxation times
    energy = 50 * param.square()
    return energy.mean().item(), energy.std().item() / math.sqrt(n), sampler


def test_a_metric_that_adapts_is_another_law():
    """As eps -> 0, G = 1 / (|w| + delta) follows the weight, and the law tends to exp(-U)/G.

    With x = 10 w that is (1 + |x|) exp(-x^2/2): nb E[L] = E[x^2]/2, of integrals over x > 0,
    is (sqrt(pi/2) + 2) / (sqrt(pi/2) + 1) / 2 = 0.722 where the learning coefficient is 0.5. Two
    steps and first order extrapolate to eps = 0.
    """
    root = math.sqrt(math.pi / 2)
    limit = (root + 2) / (root + 1) / 2
    (large, e1, _), (small, e2, _) = adapted(1e-4, alpha=0.0), adapted(2.5e-5, alpha=0.0)
    error = math.hypot(4 * e2, e1) / 3
    assert abs((4 * small - large) / 3 - limit) <= SIGMAS * error
    assert limit - 0.5 > 5 * SIGMAS * error


def test_a_slower_metric_tends_there_too():
    """Steps that do not resolve the average's own 1 / (1 - alpha) hide the error, not mend it."""
    found = [adapted(lr, alpha=0.9)[:2] for lr in (1e-3, 1e-4, 2.5e-5)]
    for (before, e1), (after, e2) in pairwise(found):
        assert after - before > SIGMAS * math.hypot(e1, e2)
    assert found[-1][0] - 0.5 > 5 * SIGMAS * found[-1][1]
    assert found[-1][0] < 0.722


def test_freezing_brings_the_posterior_back():
    lr, n, updates = 1e-4, 40_000, 40
    energy, error, sampler = adapted(lr, 0.9, adapt_steps=updates, n=n)
    v = next(iter(sampler.state.values()))["square_avg"] / (1 - 0.9**updates)
    metric = 1 / (v.sqrt() + 0.1)
    exact = (0.5 / (1 - lr * metric * 100 / 4)).mean().item()
    assert abs(energy - exact) <= SIGMAS * error
    assert exact == pytest.approx(0.5, rel=0.02)
