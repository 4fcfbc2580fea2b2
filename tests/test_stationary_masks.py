"""Masks: the law of what is sampled, and not a bit of the rest."""

import math

import pytest
import torch

import laws
from fastllc import BAOAB, SGHMC, SGLD, SGNHT, AdamSGLD, RMSpropSGLD
from laws import SIGMAS, check_normal, linear_law, run

one_thread = laws.one_thread

LR, STIFFNESS, N, BETA, FRICTION, XI = 0.05, 4.0, 60_000, 0.6, 0.2, 0.1
FROZEN = {"eps": 1.0, "adapt_steps": 0}  # G = 1/2


def adam_variance():
    e, b = LR / 4, BETA
    matrix = [[1 - e * (1 - b) * STIFFNESS, -e * b], [(1 - b) * STIFFNESS, b]]
    return linear_law(matrix, [0, 0], [math.sqrt(2 * e), 0])[1][0, 0]


# The sampler, and the variance of a weight in test_stationary_{sgld,momentum,preconditioned}.py.
SAMPLERS = {
    "SGLD": (SGLD, {}, 1 / (STIFFNESS * (1 - LR * STIFFNESS / 4))),
    "RMSpropSGLD": (RMSpropSGLD, FROZEN, 1 / (STIFFNESS * (1 - LR * STIFFNESS / 8))),
    "AdamSGLD": (AdamSGLD, {"betas": (BETA, 0.9), **FROZEN}, adam_variance()),
    "SGHMC": (
        SGHMC,
        {"friction": FRICTION},
        1 / (STIFFNESS * (1 - LR * STIFFNESS / (4 * (2 - FRICTION)))),
    ),
    "BAOAB": (BAOAB, {"friction": FRICTION}, 1 / STIFFNESS),
    # 4 A = xi (2 (2 - xi) - eps a)
    "SGNHT": (
        SGNHT,
        {"diffusion_factor": XI * (2 * (2 - XI) - LR * STIFFNESS) / 4},
        (1 - XI / 2) / STIFFNESS,
    ),
}


@pytest.mark.parametrize("share", [0.5, 0.03])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_of_a_part_of_the_weights(name, share):
    """Dense masks and sparse ones, which take another way through memory."""
    make, settings, variance = SAMPLERS[name]
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(N, generator=generator) < share
    start = torch.randn(N, generator=generator)
    param = start.clone().where(~mask, 0)
    sampler = make([param], lr=LR, mask=mask, seed=8, **settings)
    run(param, lambda w: STIFFNESS * w, sampler, 200)
    check_normal(param[mask], 0.0, variance)
    assert torch.equal(param[~mask], start[~mask])


@pytest.mark.parametrize("share", [0.5, 0.03])
def test_a_thermostat_counts_what_is_updated_only(share):
    """Counting the others too would take equilibrium for cold, and lower xi at every step."""
    generator = torch.Generator().manual_seed(2)
    params = [torch.zeros(1000, dtype=torch.float64), torch.zeros(77, dtype=torch.float64)]
    masks = [torch.rand(1000, generator=generator) < share, None]
    sampler = SGNHT(params, lr=LR, diffusion_factor=0.1, mask=masks, seed=3)
    for _ in range(5):
        before = sampler.thermostat
        for p in params:
            p.grad = STIFFNESS * p
        sampler.step()
        first, second = (sampler.state[p]["momentum"] for p in params)
        moving = torch.cat([first[masks[0]], second])
        excess = moving.square().mean().item() / LR - 1
        assert sampler.thermostat - before == pytest.approx(LR * excess, rel=1e-9)


def test_masked_weights_are_the_same_chains_as_unmasked_ones():
    """A weight's noise is its own, whatever else is sampled."""
    mask = torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.1
    params = [torch.zeros(N), torch.zeros(N)]
    for param, only in zip(params, (mask, None), strict=True):
        run(param, lambda w: STIFFNESS * w, SGLD([param], lr=LR, mask=only, seed=4), 5)
    assert torch.equal(params[0][mask], params[1][mask])


def test_the_thermostat_of_masked_weights_settles_at_its_own():
    mask = torch.arange(N) % 3 == 0
    param = torch.zeros(N)
    sampler = SGNHT([param], lr=LR, mask=mask, seed=5, **SAMPLERS["SGNHT"][1])
    run(param, lambda w: STIFFNESS * w, sampler, 200)
    assert abs(sampler.thermostat - XI) <= SIGMAS * math.sqrt(LR / int(mask.sum()))
