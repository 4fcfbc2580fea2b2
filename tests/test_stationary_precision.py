"""Low-precision weights whose steps are far below their last bit."""

import math

import pytest
import torch

import fastllc
import laws
from fastllc import SGLD
from fastllc.reference.precision import read
from laws import SIGMAS, check_normal, run

one_thread = laws.one_thread

LOW = [torch.bfloat16, torch.float16]
ULP = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}  # from 1 to 2; half of it below 1
N = 20_000


def ar1_variance(lr, a, steps, heat=0.0):
    """After `steps` from a point: w' = r w + noise, r = 1 - eps a/2, of variance eps + heat."""
    rate = 1 - lr * a / 2
    return (lr + heat) * (1 - rate ** (2 * steps)) / (1 - rate**2)


def normal_below(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("centre", [1.0, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, *LOW], ids=str)
def test_exact_weights_have_the_law_of_float32(dtype, centre):
    """A step's noise is 1e-3, a quarter of what bfloat16 needs to move at all.

    a = 4096 gives a standard deviation of 1/64, two units in the last place of bfloat16: the
    gradient, which like any model's is that of the rounded weights, then misleads the chain by
    exp(-2 pi^2 2^2), and around 1, where the spacing changes, by 0.003 standard deviations.
    """
    lr, a, steps = 1e-6, 4096.0, 1500
    param = torch.full((N,), centre, dtype=dtype)
    sampler = SGLD([param], lr=lr, nbeta=a, seed=41)
    run(param, lambda w: w - centre, sampler, steps)
    variance = ar1_variance(lr, a, steps)
    check_normal(read(param, sampler.state[param].get("residual")), centre, variance)
    if dtype in LOW:  # and what is seen of it has the variance of rounding (Sheppard) too
        squares = ULP[dtype] ** 2 * (1.0 if centre == 1.5 else (1 + 0.25) / 2)
        check_normal(param, centre, variance + squares / 12)


def test_rounding_to_nearest_would_leave_most_weights_where_they_are():
    """At 1 a step of 1e-3 z moves bfloat16 for z > 3.9 or z < -1.95, which is 3 % of all."""
    lr, steps, n = 1e-6, 300, 100_000
    up, down = ULP[torch.bfloat16] / 2, ULP[torch.bfloat16] / 4
    param = torch.ones(n, dtype=torch.bfloat16)
    sampler = SGLD([param], lr=lr, seed=42)
    run(param, torch.zeros_like, sampler, 1)
    weights = read(param, sampler.state[param]["residual"])
    nearest = weights.to(torch.bfloat16)
    assert (nearest == 1).double().mean() > 0.97
    # float32 has numbers every 6e-8 at least: of the noise 1e-4 is too small to see
    assert (weights != 1).double().mean() > 0.999

    run(param, torch.zeros_like, sampler, steps - 1)
    check_normal(read(param, sampler.state[param]["residual"]), 1.0, lr * steps)
    spread = math.sqrt(lr * steps)
    unmoved = normal_below(up / spread) - normal_below(-down / spread)
    assert unmoved < 0.15
    error = math.sqrt(unmoved * (1 - unmoved) / n)
    assert abs((param == 1).double().mean().item() - unmoved) <= SIGMAS * error


def rounding_variance(noise, ulp):
    """What stochastic rounding adds to a step of N(0, noise^2) from a number on the grid.

    x between two neighbours, a share {x} of the way, gains ulp^2 {x} (1 - {x}): 1/6 of ulp^2 for
    wide steps, noise ulp sqrt(2/pi) for narrow ones. By its Fourier series.
    """
    waves = (
        math.exp(-2 * (math.pi * k * noise / ulp) ** 2) / (math.pi * k) ** 2 for k in range(1, 1000)
    )
    return ulp**2 * (1 / 6 - sum(waves))


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_stochastic_rounding_is_harmless_from_four_units_of_noise(dtype):
    """1/6 of a unit squared is 1 % of the heat of a step with 4 units of noise. No warning."""
    lr = (4 * ULP[dtype]) ** 2
    a, steps = 0.125 / lr, 100
    param = torch.full((N,), 1.5, dtype=dtype)
    sampler = SGLD([param], lr=lr, nbeta=a, rounding="stochastic", seed=43)
    run(param, lambda w: w - 1.5, sampler, steps)
    heat = rounding_variance(math.sqrt(lr), ULP[dtype])
    assert heat == pytest.approx(lr / 96)
    check_normal(param, 1.5, ar1_variance(lr, a, steps, heat))
    check_normal(param, 1.5, ar1_variance(lr, a, steps))  # float32's
    assert "residual" not in sampler.state[param]


@pytest.mark.parametrize(("dtype", "factor"), [(torch.bfloat16, 6.25), (torch.float16, 1.16)])
def test_stochastic_rounding_heats_below_as_it_warns(dtype, factor):
    lr, a, steps = 1e-6, 4096.0, 1500
    param = torch.full((N,), 1.5, dtype=dtype)
    with pytest.warns(fastllc.PrecisionWarning, match="heats this chain"):
        sampler = SGLD([param], lr=lr, nbeta=a, rounding="stochastic", seed=44)
    run(param, lambda w: w - 1.5, sampler, steps)
    heat = rounding_variance(math.sqrt(lr), ULP[dtype])
    assert (lr + heat) / lr == pytest.approx(factor, rel=0.01)
    check_normal(param, 1.5, ar1_variance(lr, a, steps, heat))
