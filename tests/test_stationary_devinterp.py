"""A published SGNHT without momentum, beside ours: L = w^2/2, where the truth is 1/2."""

import math

import pytest
import torch

import laws
from fastllc import SGNHT
from laws import SIGMAS, run

one_thread = laws.one_thread

LR, DIFFUSION, NBETA, N = 1e-3, 0.01, 100.0, 20_000


def energies(make):
    """nbeta L of each chain."""
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.zeros(N))
    sampler = make([param])
    run(param, lambda w: w.detach().clone(), sampler, 1000)
    return (NBETA * param.detach().double().square() / 2), sampler


def test_devinterp_sgnht_is_fifty_times_too_small():
    """It injects the noise of SGNHT, 2 A eps, into SGLD, which wants eps: the law is 2 A of it."""
    sgmcmc = pytest.importorskip("devinterp.optim.sgmcmc")
    energy, _ = energies(
        lambda p: sgmcmc.SGMCMC.sgnht(p, lr=LR, diffusion_factor=DIFFUSION, nbeta=NBETA)
    )
    wrong = 2 * DIFFUSION * 0.5 / (1 - LR * NBETA / 4)
    assert abs(energy.mean().item() / wrong - 1) <= SIGMAS * math.sqrt(2 / N)
    assert wrong == pytest.approx(0.010, rel=0.03)


def test_ours_is_right():
    """1/2, but for the half of the thermostat's friction that every thermostat loses."""
    energy, sampler = energies(lambda p: SGNHT(p, lr=LR, diffusion_factor=DIFFUSION, nbeta=NBETA))
    truth, error = 0.5, 0.5 * math.sqrt(2 / N)
    assert abs(energy.mean().item() - truth) <= SIGMAS * error
    assert abs(energy.mean().item() - truth * (1 - sampler.thermostat / 2)) <= SIGMAS * error
