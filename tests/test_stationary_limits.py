"""Without noise a step is its equation; without a step nothing happens."""

import math

import pytest
import torch

from fastllc import BAOAB, SGHMC, SGLD, SGNHT, AdamSGLD, RMSpropSGLD

NBETA, GAMMA, DECAY, ANCHOR = 3.0, 0.5, 0.2, 0.4
SETTINGS = {"nbeta": NBETA, "localization": GAMMA, "weight_decay": DECAY, "seed": 1}
SAMPLERS = [SGLD, RMSpropSGLD, AdamSGLD, SGHMC, SGNHT, BAOAB]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def gradient(w):
    return w**3 - 2.0


def drift(w, toward):
    return NBETA * toward + GAMMA * (w - ANCHOR) + DECAY * w


def sgld(w, lr):
    return w - lr / 2 * drift(w, gradient(w))


class Momentum:
    def __init__(self, scale, friction, gain):
        self.m, self.scale, self.friction, self.gain = 0.0, scale, friction, gain

    def __call__(self, w, lr):
        self.m = (1 - self.friction) * self.m - self.scale * lr * drift(w, gradient(w))
        self.friction += self.gain * lr * (self.m**2 / lr - 1)
        return w + self.m


class Preconditioned:
    def __init__(self, beta, alpha, eps):
        self.m, self.v, self.t, self.decays, self.eps = 0.0, 1.0, 0, (beta, alpha), eps

    def __call__(self, w, lr):
        (beta, alpha), g = self.decays, gradient(w)
        self.t += 1
        self.m = beta * self.m + (1 - beta) * g
        self.v = alpha * self.v + (1 - alpha) * g**2
        metric = 1 / (math.sqrt(self.v / (1 - alpha**self.t)) + self.eps)
        return w - lr / 2 * metric * drift(w, self.m / (1 - beta**self.t))


@pytest.mark.parametrize(
    ("make", "settings", "update"),
    [
        (SGLD, {}, sgld),
        (RMSpropSGLD, {"alpha": 0.9, "eps": 0.2}, Preconditioned(0.0, 0.9, 0.2)),
        (AdamSGLD, {"betas": (0.7, 0.9), "eps": 0.2}, Preconditioned(0.7, 0.9, 0.2)),
        (SGHMC, {"friction": 0.3}, Momentum(0.5, 0.3, 0.0)),
        (SGNHT, {"diffusion_factor": 0.3}, Momentum(1.0, 0.3, 1.0)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_without_noise_a_step_is_its_equation(make, settings, update):
    lr, w = 0.05, ANCHOR
    param = torch.tensor([ANCHOR], dtype=torch.float64)
    sampler = make([param], lr=lr, noise_level=0.0, **settings, **SETTINGS)
    for _ in range(30):
        param.grad = gradient(param)
        sampler.step()
        w = update(w, lr)
        assert param.item() == pytest.approx(w, rel=1e-12)
    assert abs(w - ANCHOR) > 0.1


@pytest.mark.parametrize("rounding", ["exact", "stochastic"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.filterwarnings("ignore::fastllc.PrecisionWarning")
def test_without_a_step_weights_keep_their_bits(make, dtype, rounding):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1001, generator=generator, dtype=torch.float64)
    start[0] = torch.finfo(dtype).smallest_normal / 2
    start = start.to(dtype)
    param = start.clone()
    sampler = make([param], lr=0.0, rounding=rounding, bounding_box_size=1.0, **SETTINGS)
    for _ in range(3):
        param.grad = torch.ones_like(param)
        sampler.step()
    assert torch.equal(param.view(torch.uint8), start.view(torch.uint8))
    if make in (SGHMC, SGNHT, BAOAB):
        assert sampler.state[param]["momentum"].count_nonzero() == 0
