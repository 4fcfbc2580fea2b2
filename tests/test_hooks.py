"""Hooks, closures and the profiler."""

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from helpers import draw, leaf, make, same_bits


def test_hooks_run_once_each_in_torchs_order(kind):
    (param,) = make(5)
    sampler = kind([param], seed=0)
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


def test_hooks_do_not_change_the_result_and_may_change_the_arguments(kind):
    a, b = make(50), make(50)
    plain, hooked = kind(a, seed=1), kind(b, seed=1)
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


def test_the_profiler_sees_the_step(kind):
    sampler = kind(make(5), seed=0)
    with torch.autograd.profiler.profile() as profile:
        sampler.step()
    name = f"Optimizer.step#{type(sampler).__name__}.step"
    assert sum(e.name == name for e in profile.function_events) == 1


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_a_closure_runs_once_with_gradients_and_its_result_is_returned(kind, hooks, context):
    param, twin = leaf(draw(20)), leaf(draw(20))
    sampler = kind([param], seed=2)
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
    assert kind([twin], seed=2).step() is None
    assert same_bits(param, twin)


def test_an_error_in_the_closure_leaves_everything(kind):
    (param,) = make(5)
    before = param.detach().clone()
    sampler = kind([param])

    def closure():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sampler.step(closure)
    assert same_bits(param, before)
    assert sampler.param_groups[0]["step"] == 0
    assert sampler.param_groups[0]["seed"] is None
