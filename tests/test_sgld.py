"""The SGLD sampler against its formula, and as a torch optimizer."""

import copy
import inspect
import io
import itertools
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from fastllc import SGLD, DivergenceWarning, reference, standard_normal
from fastllc.kernels import Setting

DTYPES = [torch.float32, torch.float64]
SENTINEL = 7.25


def leaf(values):
    return values.detach().clone().requires_grad_()


def draw(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def make(*shapes, dtype=torch.float32):
    """Parameters with gradients."""
    params = [leaf(draw(shape, dtype, seed=i)) for i, shape in enumerate(shapes)]
    for i, param in enumerate(params):
        param.grad = draw(param.shape, dtype, seed=100 + i)
    return params


def bits(tensor):
    integers = torch.int32 if tensor.dtype == torch.float32 else torch.int64
    return tensor.detach().clone(memory_format=torch.contiguous_format).view(integers)


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(bits(a), bits(b))


def setting_of(group):
    box = group["bounding_box_size"]
    return Setting(
        *(
            float(group[name])
            for name in ("lr", "nbeta", "localization", "weight_decay", "noise_level")
        ),
        math.inf if box is None else box,
    )


def expected_step(weights, grads, anchors, settings_, *, key, step, ids=None):
    """The weights after a step, by the PyTorch reference."""
    after = []
    for i, (w, g, w0, setting) in enumerate(zip(weights, grads, anchors, settings_, strict=True)):
        z = reference.standard_normal(
            w.numel(), seed=key, step=step, param=i if ids is None else ids[i], dtype=w.dtype
        ).view(w.shape)
        anchored = setting.localization > 0 or math.isfinite(setting.bounding_box_size)
        after.append(
            reference.sgld_step(w.detach(), g.detach(), w0 if anchored else None, z, setting)
        )
    return after


# ---------------------------------------------------------------- the formula


def lay_out(values, layout):
    """Return (a view with these values in another layout, the memory around it)."""
    shape, dtype = values.shape, values.dtype
    if layout == "transposed":
        base = torch.full(tuple(reversed(shape)), SENTINEL, dtype=dtype)
        view = base.permute(tuple(reversed(range(len(shape)))))
    elif layout == "sliced":
        base = torch.full([2 * n + 1 for n in shape], SENTINEL, dtype=dtype)
        view = base[tuple(slice(1, 2 * n + 1, 2) for n in shape)]
    elif layout == "offset":  # 4 bytes off for float32, 8 for float64: no vector is aligned
        base = torch.full((values.numel() + 5,), SENTINEL, dtype=dtype)
        view = base[1 : 1 + values.numel()].view(shape)
    elif layout == "channels_last" and values.ndim == 4:
        base = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
        view = base
    else:
        base = torch.empty(shape, dtype=dtype)
        view = base
    view.copy_(values)
    return view.detach(), base


# Tails of all lengths, blocks of 256 and chunks of 16384 elements with their neighbours.
shapes = st.one_of(
    st.just(()),
    st.sampled_from([(0,), (3, 0, 2)]),
    st.integers(1, 70).map(lambda n: (n,)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(*[st.integers(1, 5)] * 4),
    st.sampled_from([255, 256, 257, 511, 512, 513, 16383, 16384, 16385]).map(lambda n: (n,)),
    st.sampled_from([(129, 127), (181, 182)]),
)
layouts = st.sampled_from(["contiguous", "transposed", "sliced", "offset", "channels_last"])
members = st.tuples(shapes, st.sampled_from(DTYPES), layouts, layouts)
options = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.0, 1e-6, 0.01, 0.7]),
        "nbeta": st.sampled_from([0.0, 1.0, 37.5]),
        "localization": st.sampled_from([0.0, 0.3, 100.0]),
        "weight_decay": st.sampled_from([0.0, 0.2]),
        "noise_level": st.sampled_from([0.0, 1.0, 2.5]),
        "bounding_box_size": st.sampled_from([None, 1e-3, 0.5, math.inf]),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.tuples(st.lists(members, min_size=1, max_size=2), options), max_size=2),
    first=st.tuples(st.lists(members, min_size=1, max_size=3), options),
    seed=st.integers(0, 2**64 - 1),
    save_metrics=st.booleans(),
)
def test_a_step_is_the_reference_bit_for_bit(groups, first, seed, save_metrics):
    params, bases, param_groups = [], [], []
    for group, option in [first, *groups]:
        own = []
        for shape, dtype, layout, grad_layout in group:
            values = draw(shape, dtype, seed=len(params))
            view, base = lay_out(values, layout)
            view.grad, _ = lay_out(draw(shape, dtype, seed=50 + len(params)), grad_layout)
            own.append(view)
            params.append(view)
            bases.append(base)
        param_groups.append({"params": own, **option})
    sampler = SGLD(param_groups, seed=seed, save_metrics=save_metrics)
    of_param = [setting_of(g) for g in sampler.param_groups for _ in g["params"]]
    anchors = [p.clone(memory_format=torch.contiguous_format) for p in params]
    strides = [p.stride() for p in params]
    for step in range(2):
        wanted = expected_step(
            params, [p.grad for p in params], anchors, of_param, key=seed, step=step
        )
        sampler.step()
        for i, (param, w) in enumerate(zip(params, wanted, strict=True)):
            assert torch.equal(param, w), (i, step)  # 0 and -0 are one: no noise leaves +0
            if of_param[i].noise_level and of_param[i].lr:
                assert same_bits(param, w), (i, step)
    for param, base, stride in zip(params, bases, strides, strict=True):
        assert param.stride() == stride
        outside = base.numel() - param.numel()
        assert (base == SENTINEL).sum() == outside, "wrote beside the parameter"


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


# ---------------------------------------------------------------- anchors and the box


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


# ---------------------------------------------------------------- settings that change


def test_lr_may_be_a_tensor_that_changes_in_place():
    ours, theirs = make(300), make(300)
    lr = torch.tensor(0.1)
    sampler = SGLD(ours, lr=lr, seed=5)
    for step, value in enumerate([0.1, 0.1, 0.02, 0.0, 0.3]):
        lr.fill_(value)
        before, grad = theirs[0].detach(), theirs[0].grad
        setting = Setting(float(torch.tensor(value)), 1.0, 0.0, 0.0, 1.0, math.inf)
        theirs[0].data = expected_step(
            [before], [grad], [None], [setting], key=5, step=step
        )[0]  # fmt: skip
        sampler.step()
        assert torch.equal(ours[0], theirs[0])
    assert sampler.param_groups[0]["lr"] is lr


def test_a_tensor_may_take_the_place_of_a_number_that_it_equals():
    """A single-precision 0.1 compares equal to 0.1, and is larger."""
    params, twins = make((3, 3)), make((3, 3))
    sampler, twin = SGLD(params, lr=0.1, seed=0), SGLD(twins, lr=0.1, seed=0)
    sampler.step()
    twin.step()
    sampler.param_groups[0]["lr"] = torch.tensor(0.1)
    twin.param_groups[0]["lr"] = float(torch.tensor(0.1))
    sampler.param_groups[0]["nbeta"] = twin.param_groups[0]["nbeta"] = 1e6
    for _ in range(2):
        sampler.step()
        twin.step()
        assert torch.equal(params[0], twins[0])
    sampler.param_groups[0]["lr"].fill_(0.5)
    twin.param_groups[0]["lr"] = 0.5
    sampler.step()
    twin.step()
    assert torch.equal(params[0], twins[0])


def test_metrics_may_be_switched_on_and_off_between_steps():
    params = make((3, 3), 4)
    sampler = SGLD([{"params": params[:1]}, {"params": params[1:]}], localization=1.0, seed=0)
    for first, second in [(False, False), (True, False), (True, True), (False, True)]:
        sampler.param_groups[0]["save_metrics"] = first
        sampler.param_groups[1]["save_metrics"] = second
        before = [p.detach().clone() for p in params]
        sampler.step()
        if first or second:
            wanted = sum(
                float((w - sampler.state[p]["w0"]).double().square().sum())
                for w, p, on in zip(before, params, (first, second), strict=True)
                if on
            )
            assert sampler.get_metrics().distance.item() == pytest.approx(wanted**0.5)
        else:
            with pytest.raises(RuntimeError, match="save_metrics"):
                sampler.get_metrics()


def test_settings_that_change_between_steps_apply_to_the_next():
    (param,) = make(300)
    sampler = SGLD([param], localization=1.0, seed=5)
    w0 = param.detach().clone()
    changes = [
        {},
        {"nbeta": 7.0},
        {"lr": 0.3, "weight_decay": 0.5},
        {"noise_level": 0.1},
        {"bounding_box_size": 0.2},
        {"localization": 0.0},
        {"bounding_box_size": None},
    ]
    for step, change in enumerate(changes):
        sampler.param_groups[0].update(change)
        setting = setting_of(sampler.param_groups[0])
        (wanted,) = expected_step([param], [param.grad], [w0], [setting], key=5, step=step)
        sampler.step()
        assert same_bits(param, wanted), change


SCHEDULERS = {
    "StepLR": lambda o: [lr_scheduler.StepLR(o, step_size=2, gamma=0.5)],
    "MultiStepLR": lambda o: [lr_scheduler.MultiStepLR(o, milestones=[1, 3], gamma=0.3)],
    "ExponentialLR": lambda o: [lr_scheduler.ExponentialLR(o, gamma=0.8)],
    "CosineAnnealingLR": lambda o: [lr_scheduler.CosineAnnealingLR(o, T_max=4)],
    "LinearLR": lambda o: [lr_scheduler.LinearLR(o, total_iters=3)],
    "ConstantLR": lambda o: [lr_scheduler.ConstantLR(o, total_iters=2)],
    "PolynomialLR": lambda o: [lr_scheduler.PolynomialLR(o, total_iters=4)],
    "LambdaLR": lambda o: [lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e))],
    "CyclicLR": lambda o: [
        lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=2, cycle_momentum=False)
    ],
    "CosineAnnealingWarmRestarts": lambda o: [lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2)],
    "two at once": lambda o: [
        lr_scheduler.ExponentialLR(o, gamma=0.9),
        lr_scheduler.StepLR(o, step_size=2),
    ],
    "ChainedScheduler": lambda o: [
        lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, gamma=0.9)]
        )
    ],
    "SequentialLR": lambda o: [
        lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, gamma=0.5)],
            milestones=[2],
        )
    ],
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_learning_rate_schedulers(name, tensor_lr):
    if tensor_lr and name == "CyclicLR":
        base = [torch.tensor(0.05), torch.tensor(0.05)]
    else:
        base = [torch.tensor(0.05), torch.tensor(0.2)] if tensor_lr else [0.05, 0.2]

    def build(kind, **arguments):
        a, b = make(30, (4, 5))
        rates = [x.clone() if tensor_lr else x for x in base]
        groups = [{"params": [a], "lr": rates[0]}, {"params": [b], "lr": rates[1]}]
        return [a, b], kind(groups, **arguments)

    params, sampler = build(SGLD, seed=9)
    _, descent = build(torch.optim.SGD)  # only gives the rates
    with warnings.catch_warnings():
        # torch's own: SequentialLR calls with an epoch
        warnings.filterwarnings("ignore", message="The epoch parameter", category=UserWarning)
        ours, theirs = SCHEDULERS[name](sampler), SCHEDULERS[name](descent)
        rates = []
        for step in range(5):
            of_param = [
                Setting(float(g["lr"]), 1.0, 0.0, 0.0, 1.0, math.inf) for g in descent.param_groups
            ]
            rates.append(of_param[0].lr)
            wanted = expected_step(
                params, [p.grad for p in params], [None] * 2, of_param, key=9, step=step
            )
            sampler.step()
            descent.step()
            for param, w in zip(params, wanted, strict=True):
                assert same_bits(param, w), step
            for scheduler in ours + theirs:
                scheduler.step()
    assert len(set(rates)) > 1, "the schedule did not change anything"


def test_reduce_on_plateau_and_schedules_in_reverse_order():
    (param,) = make(3)
    sampler = SGLD([param], lr=1.0, seed=0)
    plateau = lr_scheduler.ReduceLROnPlateau(sampler, factor=0.1, patience=0)
    for _ in range(3):
        sampler.step()
        plateau.step(1.0)
    assert sampler.param_groups[0]["lr"] == pytest.approx(0.01)
    # torch can still tell that a scheduler was stepped before the sampler
    fresh = SGLD([param], seed=0)
    scheduler = lr_scheduler.ExponentialLR(fresh, gamma=0.9)
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)"):
        scheduler.step()


# ---------------------------------------------------------------- hooks and closures


def test_hooks_run_once_each_in_torchs_order():
    (param,) = make(5)
    sampler = SGLD([param], seed=0)
    start = param.detach().clone()
    calls = []

    def hook(name):
        def call(optimizer, args, kwargs):
            assert optimizer is sampler
            calls.append((name, torch.equal(param, start)))

        return call

    handles = [
        sampler.register_step_pre_hook(hook("pre 1")),
        sampler.register_step_pre_hook(hook("pre 2")),
        sampler.register_step_post_hook(hook("post 1")),
        register_optimizer_step_pre_hook(hook("global pre")),
        register_optimizer_step_post_hook(hook("global post")),
    ]
    try:
        sampler.step()
    finally:
        for handle in handles:
            handle.remove()
    reference_calls = []

    def plain_hook(name):
        return lambda *_: reference_calls.append(name)

    descent = torch.optim.SGD(make(5), lr=0.1)
    handles = [
        descent.register_step_pre_hook(plain_hook("pre 1")),
        descent.register_step_pre_hook(plain_hook("pre 2")),
        descent.register_step_post_hook(plain_hook("post 1")),
        register_optimizer_step_pre_hook(plain_hook("global pre")),
        register_optimizer_step_post_hook(plain_hook("global post")),
    ]
    try:
        descent.step()
    finally:
        for handle in handles:
            handle.remove()
    assert [name for name, _ in calls] == reference_calls
    assert all(untouched == ("pre" in name) for name, untouched in calls)
    sampler.step()
    assert len(calls) == 5, "a removed hook ran"


def test_hooks_do_not_change_the_result_and_may_change_the_arguments():
    a, b = make(50), make(50)
    plain, hooked = SGLD(a, seed=1), SGLD(b, seed=1)
    seen = []
    hooked.register_step_pre_hook(lambda _, args, kwargs: seen.append((len(args), kwargs)))
    for _ in range(3):
        plain.step()
        hooked.step()
    assert same_bits(a[0], b[0])
    assert len(seen) == 3

    def inject(_optimizer, args, kwargs):
        return args, {**kwargs, "noise_generator": torch.Generator().manual_seed(4)}

    hooked.register_step_pre_hook(inject)
    hooked.step()
    plain.step(noise_generator=torch.Generator().manual_seed(4))
    assert same_bits(a[0], b[0])


def test_the_profiler_sees_the_step():
    sampler = SGLD(make(5), seed=0)
    with torch.autograd.profiler.profile() as profile:
        sampler.step()
    assert sum(e.name == "Optimizer.step#SGLD.step" for e in profile.function_events) == 1


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_a_closure_runs_once_with_gradients_and_its_result_is_returned(hooks, context):
    param, twin = leaf(draw(20)), leaf(draw(20))
    sampler = SGLD([param], seed=2)
    if hooks:
        sampler.register_step_pre_hook(lambda *_: None)
    calls = []

    def closure():
        assert torch.is_grad_enabled()
        sampler.zero_grad()
        loss = 0.5 * param.square().sum()
        loss.backward()
        calls.append(loss)
        return loss

    with context():
        loss = sampler.step(closure)
    assert len(calls) == 1
    assert loss is calls[0]
    twin.grad = twin.detach().clone()
    assert SGLD([twin], seed=2).step() is None
    assert same_bits(param, twin)


def test_an_error_in_the_closure_leaves_everything():
    (param,) = make(5)
    before = param.detach().clone()
    sampler = SGLD([param])

    def closure():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sampler.step(closure)
    assert same_bits(param, before)
    assert sampler.param_groups[0]["step"] == 0
    assert sampler.param_groups[0]["seed"] is None


# ---------------------------------------------------------------- parameters and groups


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_missing_gradients_leave_the_noise_of_the_others(missing):
    params = make(300, (), 5)
    grads = [p.grad for p in params]
    for i in missing:
        params[i].grad = None
    sampler = SGLD(params, seed=3)
    setting = setting_of(sampler.param_groups[0])
    for step in range(3):
        wanted = expected_step(params, grads, [None] * 3, [setting] * 3, key=3, step=step)
        before = [p.detach().clone() for p in params]
        sampler.step()
        for i, param in enumerate(params):
            assert same_bits(param, before[i] if i in missing else wanted[i])
        missing = [(i + 1) % 3 for i in missing]  # others next time
        for i, param in enumerate(params):
            param.grad = None if i in missing else grads[i]
    assert sampler.param_groups[0]["step"] == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_group_without_gradients_stays_and_the_others_move(frozen, dtype):
    """As with an unused or frozen layer that has a group of its own."""
    params = make(30, 4)
    params.insert(1, make(9, dtype=dtype)[0])
    grads = [p.grad for p in params]
    sampler = SGLD([{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(params)], seed=3)
    params[frozen].grad = None
    of_param = [setting_of(g) for g in sampler.param_groups]
    for step in range(2):
        wanted = expected_step(params, grads, [None] * 3, of_param, key=3, step=step)
        wanted[frozen] = params[frozen].detach().clone()
        sampler.step()
        for param, w in zip(params, wanted, strict=True):
            assert same_bits(param, w)


def test_groups_share_one_count_of_parameters():
    """How parameters are grouped changes nothing, nor does the dtype they stand beside."""
    together = make(40, 3, (2, 2))
    apart = make(40, 3, (2, 2))
    one = SGLD(together, seed=8)
    three = SGLD([{"params": [p]} for p in apart], seed=8)
    for _ in range(3):
        one.step()
        three.step()
    for a, b in zip(together, apart, strict=True):
        assert same_bits(a, b)
    # float64 between them, and a middle parameter of another type
    mixed = make(40, 3, (2, 2))
    mixed[1] = leaf(draw(3, torch.float64))
    mixed[1].grad = torch.zeros(3, dtype=torch.float64)
    sampler = SGLD(mixed, seed=8)
    for _ in range(3):
        sampler.step()
    assert same_bits(mixed[0], together[0])
    assert same_bits(mixed[2], together[2])


def test_a_group_added_later_is_anchored_there_and_continues_the_ids():
    a, b, c = make(30, 4, (2, 3))
    sampler = SGLD([a, b], localization=3.0, seed=6)
    for _ in range(2):
        sampler.step()
    c.data += 1.0
    anchor = c.detach().clone()
    sampler.add_param_group({"params": c, "lr": 0.2})
    c.data += 1.0
    assert torch.equal(sampler.state[c]["w0"], anchor)
    assert sampler.param_groups[1]["seed"] == 6
    assert sampler.param_groups[1]["localization"] == 3.0
    anchors = [sampler.state[p]["w0"].clone() for p in (a, b, c)]
    of_param = [setting_of(sampler.param_groups[i]) for i in (0, 0, 1)]
    for step in (2, 3):
        wanted = expected_step(
            [a, b, c], [p.grad for p in (a, b, c)], anchors, of_param, key=6, step=step
        )
        sampler.step()
        for param, w in zip((a, b, c), wanted, strict=True):
            assert same_bits(param, w), step


def test_a_second_sampler_over_the_same_group_dicts_starts_anew():
    """As one would write it for several chains: each with its own seed, from step 0."""
    a, b = make(50, 50)
    groups = [{"params": [a]}, {"params": [b], "lr": 0.1}]
    first = SGLD(groups, seed=1)
    for _ in range(3):
        first.step()
    second = SGLD(groups, seed=2, nbeta=5.0)
    assert second.param_groups[0]["seed"] == 2
    assert second.param_groups[0]["step"] == 0
    assert second.param_groups[0]["nbeta"] == 5.0
    assert second.param_groups[1]["lr"] == 0.1
    assert first.param_groups[0]["seed"] == 1


def test_named_parameters():
    model = torch.nn.Linear(3, 2)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    sampler = SGLD(model.named_parameters(), seed=0)
    assert sampler.param_groups[0]["param_names"] == ["weight", "bias"]
    assert sampler.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.grad = p.grad.clone()
    other = SGLD(twin.parameters(), seed=0)
    sampler.step()
    other.step()
    assert same_bits(model.weight, twin.weight)
    assert same_bits(model.bias, twin.bias)


def test_views_into_one_flat_buffer_are_parameters_like_any_other():
    flat = draw(1000)
    cuts = [0, 1, 300, 557, 1000]
    pieces = [flat[a:b] for a, b in itertools.pairwise(cuts)]
    for piece in pieces:
        piece.grad = draw(piece.shape, seed=4)
    single = [leaf(p) for p in pieces]
    for p, q in zip(single, pieces, strict=True):
        p.grad = q.grad.clone()
    SGLD(pieces, seed=0, localization=1.0).step()
    SGLD(single, seed=0, localization=1.0).step()
    assert same_bits(flat, torch.cat([p.detach() for p in single]))


@pytest.mark.parametrize("offset", [0, 1, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_at_any_byte(dtype, offset):
    """torch.frombuffer gives tensors that are not even aligned to their own size."""
    n, size = 700, dtype.itemsize
    memory = bytearray(n * size + offset)
    odd = torch.frombuffer(memory, dtype=dtype, offset=offset, count=n)
    odd.copy_(draw(n, dtype))
    (even,) = make(n, dtype=dtype)
    odd.grad = even.grad.clone()
    for param in (odd, even):
        sampler = SGLD([param], seed=1, localization=1.0, weight_decay=0.1, save_metrics=True)
        sampler.step()
        sampler.step()
    assert same_bits(odd, even)


def test_gradients_in_any_layout():
    grad = draw((6, 10))
    results = []
    for layout in ["contiguous", "transposed", "sliced", "offset"]:
        param = leaf(draw((6, 10)))
        param.grad, _ = lay_out(grad, layout)
        SGLD([param], seed=0).step()
        results.append(param)
    expanded = leaf(draw((6, 10)))
    expanded.grad = torch.ones(1, 1).expand(6, 10)
    ones = leaf(draw((6, 10)))
    ones.grad = torch.ones(6, 10)
    for p in (expanded, ones):
        SGLD([p], seed=0).step()
    assert all(same_bits(results[0], r) for r in results[1:])
    assert same_bits(expanded, ones)


def test_lazy_negative_gradients_are_resolved():
    whole = torch.complex(draw(9), draw(9, seed=1))
    lazy = whole.conj().imag
    assert lazy.is_neg()
    a, b = leaf(draw(9)), leaf(draw(9))
    a.grad, b.grad = lazy, lazy.clone().resolve_neg()
    for p in (a, b):
        SGLD([p], seed=0).step()
    assert same_bits(a, b)
    assert torch.equal(whole, torch.complex(draw(9), draw(9, seed=1)))


def test_gradients_are_not_written():
    params = make((30, 30), 5, dtype=torch.float64)
    before = [p.grad.clone() for p in params]
    sampler = SGLD(params, localization=1.0, save_metrics=True, seed=0)
    versions = [p.grad._version for p in params]
    sampler.step()
    for param, grad, version in zip(params, before, versions, strict=True):
        assert same_bits(param.grad, grad)
        assert param.grad._version == version


# ---------------------------------------------------------------- seeds and steps


def test_the_default_seed_comes_from_torchs_generator_at_the_first_step():
    def run(seed):
        torch.manual_seed(seed)
        (param,) = make(50)
        sampler = SGLD([param])
        assert sampler.param_groups[0]["seed"] is None
        sampler.step()
        key = sampler.param_groups[0]["seed"]
        drawn = torch.get_rng_state()
        sampler.step()
        assert sampler.param_groups[0]["seed"] == key
        assert torch.equal(torch.get_rng_state(), drawn), "only the first step draws"
        return param, key

    with torch.random.fork_rng():
        a, key_a = run(1)
        b, key_b = run(1)
        c, key_c = run(2)
    assert key_a == key_b != key_c
    assert 0 <= key_a < 2**64
    assert same_bits(a, b)
    assert not torch.equal(a, c)


def test_drawn_keys_fill_64_bits():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        keys = []
        for _ in range(64):
            sampler = SGLD(make(1))
            sampler.step()
            keys.append(sampler.param_groups[0]["seed"])
    ones = np.array([[k >> b & 1 for b in range(64)] for k in keys]).sum(axis=0)
    # binomial(64, 1/2): 32 +- 4; over 64 bits beyond 5 sigma with probability 4e-5
    assert (np.abs(ones - 32) <= 20).all()
    assert len(set(keys)) == 64


def test_the_drawn_seed_is_kept_in_the_state():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        (a,) = make(50)
        first = SGLD([a])
        first.step()
    b = leaf(a)
    b.grad = a.grad
    second = SGLD([b])
    second.load_state_dict(first.state_dict())
    first.step()
    second.step()
    assert same_bits(a, b)


def test_a_noise_generator_gives_a_key_for_that_step_alone():
    (a,) = make(60)
    (b,) = make(60)
    plain, other = SGLD([a], seed=1), SGLD([b], seed=1)
    plain.step()
    other.step()
    generator = torch.Generator().manual_seed(99)
    before = b.detach().clone()
    torch_state = torch.get_rng_state()
    other.step(noise_generator=generator)
    assert torch.equal(torch.get_rng_state(), torch_state)
    high, low = torch.randint(
        0, 2**32, (2,), generator=torch.Generator().manual_seed(99)
    ).tolist()  # fmt: skip
    setting = setting_of(other.param_groups[0])
    (wanted,) = expected_step([before], [b.grad], [None], [setting], key=high << 32 | low, step=1)
    assert same_bits(b, wanted)
    assert other.param_groups[0]["seed"] == 1
    assert other.param_groups[0]["step"] == 2
    # the generator moved on; the next step is the sampler's own again
    plain.step()
    b.data.copy_(a)
    plain.step()
    other.step()
    assert same_bits(a, b)


def test_a_noise_generator_draws_no_seed():
    sampler = SGLD(make(3))
    sampler.step(noise_generator=torch.Generator().manual_seed(0))
    assert sampler.param_groups[0]["seed"] is None


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1, np.uint64(2**64 - 1), np.int32(5)])
def test_seeds_of_64_bits(seed):
    (param,) = make(40)
    SGLD([param], lr=1.0, nbeta=0.0, seed=seed).step()
    assert torch.equal(param, draw(40) + standard_normal(40, seed=seed))


def test_the_last_step_and_the_one_beyond():
    (param,) = make(40)
    sampler = SGLD([param], lr=1.0, nbeta=0.0, seed=1)
    sampler.param_groups[0]["step"] = 2**32 - 1
    sampler.step()
    after = draw(40) + standard_normal(40, seed=1, step=2**32 - 1)
    assert torch.equal(param, after)
    with pytest.raises(OverflowError, match=r"step must be below 2\*\*32, got 4294967296"):
        sampler.step()
    assert torch.equal(param, after)


def test_no_two_elements_parameters_steps_or_seeds_share_noise():
    """Over 8 * 3 * 4 * 2 numbers of each dtype, all 32-bit values differ (bar the birthday)."""
    for dtype in DTYPES:
        seen = []
        for seed in range(3):
            params = [torch.zeros(32, dtype=dtype) for _ in range(4)]
            for p in params:
                p.grad = torch.zeros_like(p)
            sampler = SGLD(params, lr=1.0, seed=seed)
            for _ in range(2):
                before = [p.clone() for p in params]
                for p in params:
                    p.zero_()
                sampler.step()
                seen += [p.clone() for p in params]
                del before
        values = torch.cat(seen)
        # 768 floats: expected number of equal pairs 768^2/2 / 2^24 = 0.02
        assert values.unique().numel() >= values.numel() - 2


# ---------------------------------------------------------------- saving and copying

SCRIPT = """
import sys, torch
from fastllc import SGLD

def build():
    g = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2))
    model[2].double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype))
    groups = [
        {"params": list(model[0].parameters())},
        {"params": list(model[2].parameters()), "localization": 2.0, "lr": torch.tensor(0.003)},
    ]
    sampler = SGLD(groups, nbeta=4.0, weight_decay=0.1, bounding_box_size=0.4, save_metrics=True,
                   seed=SEED)
    return model, sampler, torch.optim.lr_scheduler.ExponentialLR(sampler, gamma=0.9)

def advance(model, sampler, scheduler, n):
    x = torch.linspace(-1, 1, 50).view(10, 5)
    for _ in range(n):
        sampler.zero_grad()
        model[2](model[1](model[0](x)).double()).square().mean().backward()
        sampler.step()
        scheduler.step()
"""


def run_script(seed):
    namespace = {}
    exec(SCRIPT.replace("SEED", seed), namespace)
    return namespace


@pytest.mark.parametrize("seed", ["2**64 - 1", "None"])
def test_saved_and_loaded_in_a_fresh_process_it_resumes_bit_for_bit(run_python, tmp_path, seed):
    tools = run_script(seed)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        whole = tools["build"]()
        tools["advance"](*whole, 10)
        torch.manual_seed(7)
        half = tools["build"]()
        tools["advance"](*half, 5)
    torch.save([part.state_dict() for part in half], tmp_path / "state.pt")
    done = run_python(
        SCRIPT.replace("SEED", seed)
        + f"""
parts = build()
for part, state in zip(parts, torch.load({str(tmp_path / "state.pt")!r}, weights_only=True)):
    part.load_state_dict(state)
advance(*parts, 5)
torch.save([part.state_dict() for part in parts], {str(tmp_path / "end.pt")!r})
"""
    )
    assert done.returncode == 0, done.stderr
    model, sampler, _ = torch.load(tmp_path / "end.pt", weights_only=True)
    for name, value in whole[0].state_dict().items():
        assert same_bits(model[name], value), name
        assert not torch.equal(value, half[0].state_dict()[name]), "nothing moved"
    for group, wanted in zip(
        sampler["param_groups"], whole[1].state_dict()["param_groups"], strict=True
    ):
        assert group == wanted
    for i, state in whole[1].state_dict()["state"].items():
        assert same_bits(sampler["state"][i]["w0"], state["w0"])


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "deepcopy with hooks"])
def test_copies_go_their_own_way(how):
    model = torch.nn.Linear(4, 3)
    for p in model.parameters():
        p.grad = draw(p.shape, seed=9)
    sampler = SGLD(model.parameters(), localization=2.0, save_metrics=True, seed=4)
    if "hooks" in how:
        sampler.register_step_post_hook(_noop)
    sampler.step()
    other = pickle.loads(pickle.dumps(sampler)) if how == "pickle" else copy.deepcopy(sampler)
    theirs = other.param_groups[0]["params"]
    for p, q in zip(model.parameters(), theirs, strict=True):
        q.grad = p.grad  # neither copies the gradients of parameters
    at_copy = [p.detach().clone() for p in theirs]
    sampler.step()
    assert all(same_bits(p, q) for p, q in zip(theirs, at_copy, strict=True)), "shared weights"
    other.step()
    for p, q in zip(model.parameters(), theirs, strict=True):
        assert p is not q
        assert same_bits(p, q)
        assert other.state[q]["w0"].data_ptr() != sampler.state[p]["w0"].data_ptr()


def _noop(*_):
    pass


def test_the_state_dict_is_deterministic_and_a_step_does_not_change_its_keys():
    sampler = SGLD(make(3, 4), localization=1.0, seed=0)
    first = sampler.state_dict()
    sampler.step()
    second = sampler.state_dict()
    assert list(first["state"]) == list(second["state"])
    assert list(first["param_groups"][0]) == list(second["param_groups"][0])
    buffers = [io.BytesIO(), io.BytesIO()]
    for buffer in buffers:
        torch.save(sampler.state_dict(), buffer)
    assert buffers[0].getvalue() == buffers[1].getvalue()


@pytest.mark.parametrize("found", [0, 2, None, "1"])
def test_another_noise_format_is_refused(found):
    (param,) = make(3)
    sampler = SGLD([param], seed=0)
    state = copy.deepcopy(sampler.state_dict())
    if found is None:
        del state["param_groups"][0]["noise_format"]
    else:
        state["param_groups"][0]["noise_format"] = found
    state["param_groups"][0]["seed"] = 5
    with pytest.raises(ValueError, match=f"noise_format must be 1, .* got {found}"):
        sampler.load_state_dict(state)
    assert sampler.param_groups[0]["seed"] == 0


def test_loading_into_a_sampler_that_has_stepped():
    """Nothing of what was cached before may survive."""
    (a,), (b,) = make(30), make(30)
    source = SGLD([a], lr=0.3, localization=4.0, seed=1)
    target = SGLD([b], lr=0.1, localization=1.0, bounding_box_size=0.1, seed=2, save_metrics=True)
    b.data += 1
    target.step()
    source.step()
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    b.data.copy_(a)
    source.step()
    target.step()
    assert same_bits(a, b)
    with pytest.raises(RuntimeError, match="save_metrics"):
        target.get_metrics()


def test_state_dict_hooks():
    sampler = SGLD(make(3), seed=0)
    calls = []
    sampler.register_state_dict_pre_hook(lambda _: calls.append("pre"))
    sampler.register_state_dict_post_hook(lambda _, state: calls.append("post"))
    sampler.register_load_state_dict_pre_hook(lambda _, state: calls.append("load pre"))
    sampler.register_load_state_dict_post_hook(lambda _: calls.append("load post"))
    sampler.load_state_dict(sampler.state_dict())
    assert calls == ["pre", "post", "load pre", "load post"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_anchors_keep_their_precision_when_loaded(dtype):
    (param,) = make(30, dtype=dtype)
    sampler = SGLD([param], localization=1.0, seed=0)
    anchor = sampler.state[param]["w0"].clone()
    sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert same_bits(sampler.state[param]["w0"], anchor)


# ---------------------------------------------------------------- torch around it


def test_it_prints():
    text = repr(SGLD(make(3), nbeta=12.5, seed=77))
    assert text.startswith("SGLD (")
    assert "nbeta: 12.5" in text
    assert "seed: 77" in text


def test_it_is_a_torch_optimizer():
    sampler = SGLD(make(3))
    assert isinstance(sampler, torch.optim.Optimizer)
    signature = inspect.signature(SGLD)
    assert list(signature.parameters) == [
        "params", "lr", "noise_level", "weight_decay", "localization", "nbeta",
        "bounding_box_size", "save_metrics", "seed",
    ]  # fmt: skip
    sampler.zero_grad()
    assert sampler.param_groups[0]["params"][0].grad is None
    sampler.step()
    (param,) = make(3)
    sampler = SGLD([param])
    sampler.zero_grad(set_to_none=False)
    assert (param.grad == 0).all()


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_autograd_notices_that_a_saved_weight_was_sampled(layout):
    param, _ = lay_out(draw((4, 5)), layout)
    param.requires_grad_()
    frozen = leaf(draw(3))
    sampler = SGLD([param, frozen], seed=0)
    loss = param.square().sum()
    param.grad = torch.ones_like(param)
    versions = param._version, frozen._version
    sampler.step()
    assert param._version > versions[0]
    assert frozen._version == versions[1], "nothing of it was written"
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_requires_grad_and_graph_are_as_before():
    (param,) = make(3)
    sampler = SGLD([param], localization=1.0, seed=0)
    sampler.step()
    assert param.requires_grad
    assert param.is_leaf
    assert param.grad_fn is None
    assert not sampler.state[param]["w0"].requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("layout", ["contiguous", "sliced"])
def test_a_step_inside_any_gradient_mode(context, layout):
    plain, _ = lay_out(draw((5, 6)), layout)
    inside, _ = lay_out(draw((5, 6)), layout)
    for p in (plain, inside):
        p.grad = draw((5, 6), seed=3)
    SGLD([plain], seed=0, localization=1.0, save_metrics=True).step()
    sampler = SGLD([inside], seed=0, localization=1.0, save_metrics=True)
    with context():
        sampler.step()
        sampler.get_metrics()
    assert same_bits(plain, inside)
    sampler.step()


def test_a_sampler_made_in_inference_mode_works_outside():
    (param,) = make(6)
    with torch.inference_mode():
        sampler = SGLD([param], seed=0, localization=1.0)
    sampler.step()
    twin = copy.deepcopy(sampler)
    sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
    sampler.step()
    twin.step()
    assert same_bits(param, twin.param_groups[0]["params"][0])


def test_inference_tensors_are_sampled():
    with torch.inference_mode():
        param = draw(6)
        param.grad = draw(6, seed=1)
    (plain,) = make(6)
    plain.grad = draw(6, seed=1)
    SGLD([param], seed=0).step()
    SGLD([plain], seed=0).step()
    assert same_bits(param, plain)


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("device", ["meta"])
def test_a_default_device_changes_nothing(device, seed):
    """Weights on the CPU stay CPU work, whatever torch.set_default_device says."""
    with torch.random.fork_rng():
        (a,), (b,) = make(6), make(6)
        torch.manual_seed(0)
        one = SGLD([a], localization=1.0, save_metrics=True, seed=seed)
        one.step()
        torch.manual_seed(0)
        with torch.device(device):
            other = SGLD([b], localization=1.0, save_metrics=True, seed=seed)
            other.step()
            metrics = other.get_metrics()
    assert same_bits(a, b)
    assert metrics == one.get_metrics()


def test_a_default_dtype_changes_nothing():
    (a,), (b,) = make(300), make(300)
    SGLD([a], localization=1.0, seed=0).step()
    torch.set_default_dtype(torch.float64)
    try:
        SGLD([b], localization=1.0, seed=0, lr=torch.tensor(0.01)).step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert same_bits(a, b)


def loop(compiled):
    torch._dynamo.reset()
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(draw(p.shape, seed=i))
    sampler = SGLD(model.parameters(), lr=1e-3, nbeta=10.0, localization=1.0, seed=1)
    x, y = draw((32, 4), seed=5), draw((32, 1), seed=6)

    def gradient():
        sampler.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()

    def step():
        gradient()
        sampler.step()

    if compiled == "outside":
        gradient = torch.compile(gradient, backend="eager")
    if compiled == "model":
        model.compile(backend="eager")
    if compiled == "inside":
        step = torch.compile(step, backend="eager")
    if compiled == "step":
        sampler.step = torch.compile(sampler.step, backend="eager")
    for _ in range(4):
        step()
    assert sampler.param_groups[0]["step"] == 4
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("compiled", ["outside", "model", "inside", "step"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_loops_sample_the_same(compiled):
    for a, b in zip(loop(None), loop(compiled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_grad_scaler_skips_a_step_with_infinite_gradients():
    (param,) = make(5)
    before = param.detach().clone()
    scaler = torch.amp.GradScaler("cpu")
    sampler = SGLD([param], seed=0)
    scaler.scale(torch.tensor(1.0))
    param.grad[0] = math.inf
    scaler.step(sampler)
    scaler.update()
    assert same_bits(param, before)
    assert sampler.param_groups[0]["step"] == 0


def test_weights_that_move_in_memory_are_followed():
    a, b = make((300, 3)), make((300, 3))
    sampler, twin = SGLD(a, seed=0, localization=1.0), SGLD(b, seed=0, localization=1.0)
    old = []
    for i in range(4):
        sampler.step()
        twin.step()
        old.append((a[0].data, a[0].data.clone()))
        moved = torch.empty(3, 300).t() if i % 2 else torch.empty(300, 3)  # other strides too
        a[0].data = moved.copy_(a[0].data)
        a[0].grad = a[0].grad.clone()
    sampler.step()
    twin.step()
    assert same_bits(a[0], b[0])
    for tensor, copied in old:
        assert torch.equal(tensor, copied), "an abandoned memory was written"


def test_gradients_that_are_freed_and_made_again_each_step():
    a, b = make((64, 64), 5), make((64, 64), 5)
    sampler, twin = SGLD(a, seed=0), SGLD(b, seed=0)
    for step in range(20):
        for p, q in zip(a, b, strict=True):
            p.grad = None
            _noise = [torch.full_like(p, math.nan) for _ in range(3)]  # reuses what was freed
            p.grad = draw(p.shape, seed=step)
            q.grad.copy_(p.grad)
        sampler.step()
        twin.step()
    for p, q in zip(a, b, strict=True):
        assert same_bits(p, q)


def test_swapped_tensors_are_followed():
    (a,), (b,) = make(5), make(5)
    sampler = SGLD([a], seed=0)
    sampler.step()
    SGLD([b], seed=0).step()
    after_one = b.detach().clone()
    other = leaf(torch.zeros(5))
    torch.utils.swap_tensors(a, other)
    a.grad = torch.zeros(5)
    sampler.step()
    assert torch.equal(other.detach(), after_one)
    torch.testing.assert_close(
        a.detach(), 0.1 * standard_normal(5, seed=0, step=1), rtol=1e-6, atol=0
    )
