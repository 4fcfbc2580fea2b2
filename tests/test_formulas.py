"""Every sampler against its published equations, in extended precision, not the reference."""

import numpy as np
import pytest
import torch

from fastllc import (
    BAOAB,
    SGHMC,
    SGLD,
    SGNHT,
    AdamSGLD,
    RMSpropSGLD,
    reference,
    standard_normal,
)
from helpers import OWN, SAMPLERS, make

LR, NBETA, GAMMA, DECAY, SIGMA = 3e-3, 40.0, 5.0, 0.7, 1.3
N = 3000


def root(x):
    return np.sqrt(np.longdouble(x))


def sgld(s, own, t, w, drift, g, z):
    return w - LR / 2 * drift(g) + root(LR) * SIGMA * z


def preconditioner(s, own, t, g, alpha):
    """With a bias correction, from 1; frozen after adapt_steps."""
    if t <= own["adapt_steps"]:
        s["v"] = alpha * s.get("v", 1) + (1 - alpha) * g**2
    corrected = s["v"] / (1 - np.longdouble(alpha) ** min(t, own["adapt_steps"]))
    return 1 / (np.sqrt(corrected) + own["eps"])


def rmsprop(s, own, t, w, drift, g, z):
    metric = preconditioner(s, own, t, g, own["alpha"])
    return w - LR / 2 * metric * drift(g) + np.sqrt(LR * metric) * SIGMA * z


def adam(s, own, t, w, drift, g, z):
    beta, alpha = own["betas"]
    metric = preconditioner(s, own, t, g, alpha)
    s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    mean = s["m"] / (1 - np.longdouble(beta) ** t)
    return w - LR / 2 * metric * drift(mean) + np.sqrt(LR * metric) * SIGMA * z


def sghmc(s, own, t, w, drift, g, z):
    alpha = own["friction"]
    s.setdefault("m", root(LR / 2) * SIGMA * s["start"])
    s["m"] = (1 - alpha) * s["m"] - LR / 2 * drift(g) + root(alpha * LR) * SIGMA * z
    return w + s["m"]


def sgnht(s, own, t, w, drift, g, z):
    factor = own["diffusion_factor"]
    s.setdefault("m", root(LR) * SIGMA * s["start"])
    xi = s.setdefault("xi", factor)
    s["m"] = (1 - xi) * s["m"] - LR * drift(g) + root(2 * factor * LR) * SIGMA * z
    s["xi"] = xi + LR * ((s["m"] ** 2).sum() / (LR * w.size) - 1)
    return w + s["m"]


def baoab(s, own, t, w, drift, g, z):
    alpha = own["friction"]
    s.setdefault("m", root(LR) * SIGMA * s["start"])
    kicked = s["m"] - LR * drift(g)
    s["m"] = (1 - alpha) * kicked + root((1 - (1 - alpha) ** 2) * LR) * SIGMA * z
    return w + kicked / 2 + s["m"] / 2


RULES = {
    SGLD: sgld,
    RMSpropSGLD: rmsprop,
    AdamSGLD: adam,
    SGHMC: sghmc,
    SGNHT: sgnht,
    BAOAB: baoab,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_chain_is_the_equations(sampler, dtype):
    (param,) = make(N, dtype=dtype)
    made = sampler(
        [param], lr=LR, nbeta=NBETA, localization=GAMMA, weight_decay=DECAY, noise_level=SIGMA,
        seed=11, **OWN[sampler],
    )  # fmt: skip
    start = reference.standard_normal(N, seed=11, param=0, stream="momentum", dtype=dtype)
    state = {"start": start.numpy().astype(np.longdouble)}
    w0 = w = param.detach().numpy().astype(np.longdouble)
    for t in range(1, 7):
        generator = torch.Generator().manual_seed(t)
        param.grad = torch.randn(N, dtype=dtype, generator=generator)
        g = param.grad.numpy().astype(np.longdouble)
        z = standard_normal(N, seed=11, step=t - 1, dtype=dtype).numpy().astype(np.longdouble)
        now = w

        def drift(g, w=now):
            return NBETA * g + GAMMA * (w - w0) + DECAY * w

        w = RULES[sampler](state, OWN[sampler], t, w, drift, g, z)
        made.step()
        error = np.abs(param.detach().numpy() - w)
        # some 30 roundings a step, of numbers below 10; the chain contracts
        assert error.max() <= 30 * t * 10 * torch.finfo(dtype).eps / 2
        assert error.max() > 0, "longdouble is no wider here"
    assert np.abs(w - w0).max() > 0.1
    if sampler is SGNHT:
        assert made.thermostat == pytest.approx(float(state["xi"]), rel=1e-4)
        assert made.thermostat != OWN[SGNHT]["diffusion_factor"]
