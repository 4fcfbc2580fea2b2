"""SGLD against its formula; anchors and the box."""

import math

import numpy as np
import pytest
import torch

from fastllc import SGLD, DivergenceWarning, standard_normal
from helpers import DTYPES, draw, lay_out, leaf, make, same_bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_the_formula_in_extended_precision(dtype):
    """Written out in numpy, without the reference."""
    n, lr, nbeta, gamma, decay, sigma = 5000, 3e-3, 40.0, 5.0, 0.7, 1.3
    (param,) = make(n, dtype=dtype)
    w0 = param.detach().numpy().astype(np.longdouble)
    sampler = SGLD(
        [param], lr=lr, nbeta=nbeta, localization=gamma, weight_decay=decay, noise_level=sigma,
        seed=11,
    )  # fmt: skip
    eps = torch.finfo(dtype).eps
    for step in range(3):
        w, g = (x.detach().numpy().astype(np.longdouble) for x in (param, param.grad))
        z = standard_normal(n, seed=11, step=step, dtype=dtype).numpy().astype(np.longdouble)
        terms = [
            w,
            -lr / 2 * nbeta * g,
            -lr / 2 * gamma * (w - w0),
            -lr / 2 * decay * w,
            np.sqrt(np.longdouble(lr)) * sigma * z,
        ]
        sampler.step()
        error = np.abs(param.detach().numpy() - sum(terms))
        # coefficients and products are rounded up to four times, sums four times: eps/2 each
        assert (error <= 4 * eps * sum(np.abs(t) for t in terms)).all()
        assert error.max() > 0, "longdouble is no wider here"


def test_golden_weights():
    """Independent of everything else here: what a seed means must not drift unnoticed."""
    (param,) = make(1000)
    SGLD([param], lr=0.25, noise_level=1.0, nbeta=0.0, seed=3).step()
    z = standard_normal(1000, seed=3)
    assert torch.equal(param, draw(1000) + 0.5 * z)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_noise_it_is_gradient_descent(dtype):
    lr, nbeta, decay = 0.02, 3.0, 0.1
    ours, theirs = (make((300, 3), 7, (), dtype=dtype) for _ in range(2))
    sampler = SGLD(ours, lr=lr, nbeta=nbeta, weight_decay=decay / nbeta, noise_level=0.0)
    # w - lr/2 (nbeta g + decay/nbeta w): SGD multiplies its own decay by its rate
    descent = torch.optim.SGD(theirs, lr=lr / 2 * nbeta, weight_decay=decay / nbeta**2)
    for _ in range(5):
        sampler.step()
        descent.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=8 * torch.finfo(dtype).eps, atol=1e-7)
        assert not torch.equal(a, draw(a.shape, dtype))


def test_no_noise_means_no_seed_is_needed_and_seeds_do_not_matter():
    results = []
    for seed in (None, 0, 1):
        (param,) = make(100)
        SGLD([param], noise_level=0.0, seed=seed).step()
        results.append(param)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("anchored", [False, True])
def test_lr_zero_leaves_every_weight(dtype, anchored):
    info = torch.finfo(dtype)
    special = [0.0, info.tiny, info.tiny / 8, -info.smallest_normal / 2, info.max, -info.max, 1.0]
    param = leaf(torch.tensor(special * 50, dtype=dtype))
    param.grad = draw(param.shape, dtype)
    before = param.detach().clone()
    sampler = SGLD(
        [param],
        lr=0.0,
        nbeta=1e30,
        weight_decay=1.0,
        localization=5.0 if anchored else 0.0,
        bounding_box_size=1.0 if anchored else None,
    )
    for _ in range(3):
        sampler.step()
    assert same_bits(param, before)
    assert sampler.param_groups[0]["step"] == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 70, 256, 700])
def test_the_box_holds_every_weight_and_is_reached(dtype, n):
    (param,) = make(n, dtype=dtype)
    w0, box = param.detach().clone(), 0.125
    sampler = SGLD([param], lr=1.0, bounding_box_size=box, seed=0)
    for _ in range(20):
        sampler.step()
        assert (param >= w0 - box).all()
        assert (param <= w0 + box).all()
    at_the_wall = (param == w0 - box) | (param == w0 + box)
    # |N(0, 1)| exceeds 0.125 with probability 0.90: at least half of 70, and some of few
    assert at_the_wall.sum() >= n // 2


def test_the_box_clamps_infinity_and_lets_nan_through():
    (param,) = make(600)
    w0 = param.detach().clone()
    param.grad[5], param.grad[300], param.grad[599] = math.inf, -math.inf, math.nan
    sampler = SGLD([param], bounding_box_size=0.5, seed=0)
    with pytest.warns(DivergenceWarning, match=r"params\[0\] \(1 of 600\)"):
        sampler.step()
    assert param[5] == w0[5] - 0.5
    assert param[300] == w0[300] + 0.5
    assert param[599].isnan()
    assert param.isfinite().sum() == 599


def test_each_group_has_its_own_box():
    a, b, c = make(500, 500, 500)
    before = [p.detach().clone() for p in (a, b, c)]
    groups = [
        {"params": [a], "bounding_box_size": 0.01},
        {"params": [b]},
        {"params": [c], "bounding_box_size": 0.3},
    ]
    SGLD(groups, lr=1.0, seed=0).step()
    reach = [(p - w0).abs().max() for p, w0 in zip((a, b, c), before, strict=True)]
    assert reach[0] <= 0.01 * (1 + 1e-4)
    assert reach[1] > 1
    assert 0.29 < reach[2] <= 0.3 * (1 + 1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced", "offset"])
def test_the_anchor_is_where_the_weights_were_handed_over(layout):
    param, _ = lay_out(draw((40, 9)), layout)
    w0 = param.clone()
    sampler = SGLD([param], lr=0.5, localization=2.0, noise_level=0.0, nbeta=0.0)
    with torch.no_grad():
        param += 4.0  # afterwards: no new anchor
    param.grad = torch.zeros(40, 9)
    moved = param.clone()
    sampler.step()
    torch.testing.assert_close(param, moved - 0.5 * (moved - w0), rtol=1e-6, atol=1e-6)
    assert torch.equal(sampler.state[param]["w0"], w0)
    assert sampler.state[param]["w0"].data_ptr() != param.data_ptr()


def test_no_anchor_is_kept_where_nothing_needs_one():
    a, b = make(4, 4)
    sampler = SGLD([{"params": [a]}, {"params": [b], "localization": 1.0}], seed=0)
    sampler.step()
    assert "w0" not in sampler.state[a]
    assert "w0" in sampler.state[b]


@pytest.mark.parametrize("replace", ["item", "data"])
def test_an_anchor_that_is_replaced_in_the_state_counts(run_python, replace):
    """state[p]["w0"] is the anchor. In a process of its own: a stale address would crash."""
    script = f"""
import torch
from fastllc import SGLD
p = torch.zeros(1_000_000)
p.grad = torch.zeros_like(p)
s = SGLD([p], lr=1.0, localization=1.0, noise_level=0.0, seed=0)
s.step()
new = torch.full_like(p, 100.0)
if {replace!r} == "item":
    s.state[p]["w0"] = new
else:
    s.state[p]["w0"].data = new
s.step()
assert (p == 50.0).all(), p
"""
    done = run_python(script)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
