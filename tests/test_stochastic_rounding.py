"""Rounding at random, through a native step without noise: from one number to beside another."""

import math

import pytest
import torch

import fastllc
from fastllc import SGLD
from fastllc.reference.precision import read
from laws import SIGMAS

pytestmark = pytest.mark.filterwarnings("ignore::fastllc.PrecisionWarning")

LOW = [torch.bfloat16, torch.float16]
N = 40_000


def beyond(x, dtype):
    """The next number away from zero."""
    bits = torch.tensor(x, dtype=dtype).view(torch.int16) + 1
    return bits.view(dtype).item()


def move(start, by, share, dtype, seed=1, n=N):
    """Weights that a step has moved by this share of `by`, which arithmetic does exactly."""
    param = torch.full((n,), start, dtype=dtype)
    param.grad = torch.full((n,), -by, dtype=dtype)
    SGLD([param], lr=2 * share, noise_level=0.0, rounding="stochastic", seed=seed).step()
    return param


def places(dtype):
    info = torch.finfo(dtype)
    smallest = info.smallest_normal * info.eps  # the smallest subnormal
    return {
        "one": 1.0,
        "below a power of two": 2 - info.eps,
        "a fraction": 0.15625,
        "the smallest normal": info.smallest_normal,
        "the largest subnormal": info.smallest_normal - smallest,
        "a subnormal": 5 * smallest,
        "zero": 0.0,
    }


@pytest.mark.parametrize("share", [1 / 8192, 0.25, 0.5, 4099 / 8192, 1 - 1 / 8192])
@pytest.mark.parametrize("place", places(LOW[0]))
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_the_mean_is_exact(dtype, place, share):
    """A number a share s of the way to the next goes there with probability s."""
    start = places(dtype)[place]
    there = beyond(start, dtype)
    n = N if 0.01 < share < 0.99 else 2**19  # the rarest comes 64 times: its last bits count
    param = move(start, there - start, share, dtype, n=n).double()
    up = (param == there).sum().item()
    assert up + (param == start).sum().item() == n
    assert abs(up - share * n) <= SIGMAS * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("place", places(LOW[0]))
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_what_can_be_represented_stays(dtype, place):
    start = places(dtype)[place]
    there = beyond(start, dtype)
    for share, wanted in ((0.0, start), (1.0, there)):
        assert torch.equal(
            move(start, there - start, share, dtype), torch.full((N,), wanted, dtype=dtype)
        )


@pytest.mark.parametrize("place", places(LOW[0]))
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_signs_are_symmetric(dtype, place):
    start = places(dtype)[place]
    step = beyond(start, dtype) - start
    found = [move(sign * start, sign * step, 0.3, dtype) for sign in (1, -1)]
    assert torch.equal(found[0], -found[1])


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_what_is_not_finite_stays(dtype):
    values = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=dtype)
    param = values.repeat(100)
    param.grad = torch.zeros_like(param)
    sampler = SGLD([param], lr=1.0, noise_level=0.0, rounding="stochastic", seed=0)
    with pytest.warns(fastllc.DivergenceWarning, match=r"\(300 of 400\)"):
        sampler.step()
    torch.testing.assert_close(param, values.repeat(100), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_beyond_the_largest_number_is_infinity(dtype):
    """As likely as it is far on the way to where the next number would be."""
    largest = torch.finfo(dtype).max
    gap = largest - torch.tensor(largest, dtype=dtype).view(torch.int16).sub(1).view(dtype).item()
    with pytest.warns(fastllc.DivergenceWarning):
        param = move(largest, gap, 0.25, dtype)
    up = param.isinf().sum().item()
    assert up + (param == largest).sum().item() == N
    assert abs(up - N / 4) <= SIGMAS * math.sqrt(N * 0.25 * 0.75)


def walk(start, rounding):
    """A step with noise from these weights."""
    param = start.clone()
    param.grad = torch.ones_like(param)
    sampler = SGLD([param], lr=1e-3, rounding=rounding, seed=7)
    sampler.step()
    return param, sampler.state[param].get("residual")


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_its_random_numbers_are_its_own(dtype):
    """The same noise is added before as in float32, and rounding does not know of it."""
    start = torch.full((N,), 1.5, dtype=dtype)
    exact = read(*walk(start, "exact"))
    wide, _ = walk(start.float(), "exact")
    assert torch.equal(exact, wide)
    rounded, residual = walk(start, "stochastic")
    assert residual is None
    error = rounded.float() - wide
    ulp = torch.where(wide < 1, 0.5, 1.0) * torch.finfo(dtype).eps
    assert (error.abs() < ulp).all()
    assert error.count_nonzero() > 0.99 * N
    score = error.double().mean() / error.double().std() * math.sqrt(N)
    assert abs(score.item()) <= SIGMAS
    noise = wide - 1.5
    found = torch.corrcoef(torch.stack([error, noise]))[0, 1].item()
    assert abs(found) <= SIGMAS / math.sqrt(N)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_elements_steps_and_seeds_round_independently(dtype):
    eps = torch.finfo(dtype).eps
    params = [torch.ones(N, dtype=dtype), torch.ones(N, dtype=dtype)]
    sampler = SGLD(params, lr=1.0, noise_level=0.0, rounding="stochastic", seed=1)
    rows = [move(1.0, eps, 0.5, dtype, seed=2) > 1]
    for _ in range(2):
        for p in params:
            p.fill_(1.0)
            p.grad = torch.full_like(p, -eps)
        sampler.step()
        rows += [p > 1 for p in params]
    rows += [rows[0].roll(shift) for shift in (1, 2, 4, 16, 128, 256)]
    found = torch.corrcoef(torch.stack(rows).double()).fill_diagonal_(0)
    assert found.abs().max() <= SIGMAS / math.sqrt(N)
