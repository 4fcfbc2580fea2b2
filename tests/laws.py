"""What tests of stationary laws share: chains, runs, linear maps and error bars.

Each coordinate of one tensor is an independent chain: means over them have plain standard errors.
Bounds are 5 standard errors; seeds are fixed.
"""

import math

import numpy as np
import pytest
import torch

SIGMAS = 5.0


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Bits do not depend on it, and on a busy machine two threads wait for each other."""
    threads(1)


def chains(stiffness, per_stiffness, dtype=torch.float32):
    """Curvature of each coordinate, shape [len(stiffness) * per_stiffness]."""
    return torch.tensor(stiffness, dtype=dtype).repeat_interleave(per_stiffness)


def run(param, grad_of, sampler, steps):
    for _ in range(steps):
        param.grad = grad_of(param)
        sampler.step()


def check_normal(draws, mean, variance):
    """Independent draws of N(mean, variance), by their first two moments.

    `mean` and `variance` may be those of each draw.
    """
    z = (draws.double() - mean) / variance**0.5
    assert abs(z.mean().item()) <= SIGMAS / math.sqrt(z.numel())
    assert abs(z.square().mean().item() - 1) <= SIGMAS * math.sqrt(2 / z.numel())


def check_mean(draws, mean):
    """Independent draws with this mean; their spread is taken from themselves."""
    assert abs(draws.mean().item() - mean) <= SIGMAS * draws.std().item() / math.sqrt(draws.numel())


def linear_law(matrix, shift, noise):
    """Mean and covariance that x' = matrix x + shift + noise z settles to, z a standard normal.

    mean = matrix mean + shift, covariance = matrix covariance matrix^T + noise noise^T: linear in
    both. Leading dimensions are a batch.
    """
    matrix, shift, noise = (np.asarray(x, dtype=np.float64) for x in (matrix, shift, noise))
    n = matrix.shape[-1]
    mean = np.linalg.solve(np.eye(n) - matrix, shift[..., None])[..., 0]
    pairs = np.einsum("...ik,...jl->...ijkl", matrix, matrix)
    square = pairs.reshape(*matrix.shape[:-2], n * n, n * n)
    heat = np.einsum("...i,...j->...ij", noise, noise).reshape(*noise.shape[:-1], n * n, 1)
    covariance = np.linalg.solve(np.eye(n * n) - square, heat)[..., 0]
    return mean, covariance.reshape(matrix.shape)


def quartic_draws(n, seed):
    """Draws of exp(-w^4): w = +- gamma(1/4)^(1/4)."""
    generator = np.random.default_rng(seed)
    size = generator.gamma(0.25, size=n) ** 0.25
    return torch.from_numpy(size * generator.choice([-1.0, 1.0], size=n))


QUARTIC_SIXTH = math.gamma(1.75) / math.gamma(0.25)  # E[w^6] under exp(-w^4)


def run_quartic(params, sampler, steps):
    """Sample exp(-nbeta w^4), with gradients in place: new ones would cost more than the steps."""
    for p in params:
        p.grad = torch.empty_like(p)
    for _ in range(steps):
        for p in params:
            torch.mul(p, p, out=p.grad).mul_(p).mul_(4)
        sampler.step()
