"""BAOAB: the law of the weights has no step-size bias where the loss is quadratic."""

import math

import pytest
import torch

import laws
from fastllc import BAOAB
from laws import QUARTIC_SIXTH, SIGMAS, chains, check_normal, linear_law, run

one_thread = laws.one_thread


@pytest.mark.parametrize("friction", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("sigma", [1.0, 0.7])
def test_an_anisotropic_quadratic_is_exact(friction, sigma):
    """A linear map of (w, m) around the mean, with s = a eps, c = 1 - alpha:

        k = m - s w,  m' = c k + r z,  w' = w + k/2 + m'/2,  r^2 = (1 - c^2) eps sigma^2.

    Its stationary covariance has var w = sigma^2 / a for every s < 4.
    """
    lr, nbeta, gamma, minimum, anchor = 0.1, 10.0, 4.0, 0.7, -0.3
    stiffness, n = [0.4, 1.2, 3.0], 20_000
    h = chains(stiffness, n)
    param = torch.full_like(h, anchor)
    sampler = BAOAB(
        [param], lr=lr, friction=friction, nbeta=nbeta, localization=gamma, noise_level=sigma,
        seed=31,
    )  # fmt: skip
    run(param, lambda w: h * (w - minimum), sampler, round(12 / -math.log(1 - friction / 2)))
    momentum = sampler.state[param]["momentum"]
    for w, m, hi in zip(param.view(3, n), momentum.view(3, n), stiffness, strict=True):
        a, c = nbeta * hi + gamma, 1 - friction
        s, r = lr * a, math.sqrt((1 - (1 - friction) ** 2) * lr) * sigma
        shift = lr * (nbeta * hi * minimum + gamma * anchor)
        half = (1 + c) / 2
        mean, covariance = linear_law(
            [[1 - half * s, half], [-c * s, c]], [half * shift, c * shift], [r / 2, r]
        )
        assert covariance[0, 0] == pytest.approx(sigma**2 / a, rel=1e-9)
        check_normal(w, mean[0], sigma**2 / a)
        check_normal(m, 0.0, covariance[1, 1])


def test_it_explodes_just_beyond_its_stability_limit():
    for a, bounded in ((3.9, True), (4.1, False)):
        param = torch.full((100,), 0.1, dtype=torch.float64)
        run(param, lambda w, a=a: a * w, BAOAB([param], lr=1.0, friction=0.1, seed=0), 2000)
        assert (param.abs().max() < 100) == bounded


def test_the_virial_of_a_quartic():
    """1/4 of L = w^4; the step's bias, of the order of eps E[w^6], is below a standard error."""
    n, lr = 100_000, 0.002
    param = laws.quartic_draws(n, seed=9)
    laws.run_quartic([param], BAOAB([param], lr=lr, friction=0.2, seed=4), 500)
    energy = param**4
    error = energy.std().item() / math.sqrt(n)
    assert lr * QUARTIC_SIXTH < error
    assert abs(energy.mean().item() - 0.25) <= SIGMAS * error
