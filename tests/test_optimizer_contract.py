"""Every sampler as a torch optimizer: torch's own tests of its optimizers, without noise."""

import inspect
import math

import pytest
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fastllc import BAOAB, SGHMC, SGLD, SGNHT
from fastllc.samplers.settings import Common
from helpers import SAMPLERS, check_step, draw, leaf, make, same_bits
from torch_inputs import INFOS, each_info, foreign_inputs, inputs_of

MOMENTUM = [SGHMC, SGNHT, BAOAB]


def test_it_prints(kind):
    sampler = kind(make(3), nbeta=12.5, seed=77)
    text = repr(sampler)
    assert text.startswith(f"{type(sampler).__name__} (")
    assert "nbeta: 12.5" in text
    assert "seed: 77" in text


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_is_made_like_a_torch_optimizer(sampler):
    signature = inspect.signature(sampler)
    assert list(signature.parameters)[:2] == ["params", "lr"]
    rest = list(signature.parameters.values())[2:]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in rest)
    made = sampler(make(3), **{p.name: p.default for p in rest if p.kind == p.KEYWORD_ONLY})
    for name in Common.__annotations__:
        assert name in made.param_groups[0]
        assert name in made.defaults


def test_it_is_a_torch_optimizer(kind):
    sampler = kind(make(3))
    assert isinstance(sampler, torch.optim.Optimizer)
    sampler.zero_grad()
    assert sampler.param_groups[0]["params"][0].grad is None
    sampler.step()
    (param,) = make(3)
    sampler = kind([param])
    sampler.zero_grad(set_to_none=False)
    assert (param.grad == 0).all()


@each_info
def test_the_errors_of_torchs_optimizers(info):
    for case in info.optim_error_inputs_func("cpu", torch.float32):
        given = case.optimizer_error_input
        params = make(3) if given.params is None else given.params
        if case.error_type is None:
            info.optim_cls(params, **given.kwargs)
            continue
        with pytest.raises(case.error_type, match=case.error_regex):
            info.optim_cls(params, **given.kwargs)


@each_info
def test_the_arguments_of_other_optimizers_are_refused(info):
    refused = foreign_inputs(info.optim_cls)
    assert len(refused) > 15
    for given in refused:
        with pytest.raises(TypeError, match="got an unexpected argument"):
            info.optim_cls(make(3), **given.kwargs)


@each_info
def test_every_input_gives_the_steps_of_the_reference(info):
    """A single tensor, several, without elements, of one element and last among others."""
    for shapes in ([(20,)], [(10, 5), (10,), (), (0,)], [(3,), (0, 4), ()]):
        for kwargs in inputs_of(info):
            sampler = info.optim_cls(make(*shapes), **kwargs, seed=4)
            for _ in range(3):
                check_step(sampler)


def descend(info, params, weight, bias, kwargs, schedulers):
    """Take steps without noise; return the loss before and after.

    As many as torch takes, but two with momentum, which swings through the minimum and up again.
    """
    x = draw(5, seed=3)
    sampler = info.optim_cls(params, **kwargs, noise_level=0.0, seed=0)
    schedulers = [make_one(sampler) for make_one in schedulers]

    def closure():
        sampler.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        return loss

    before = closure().item()
    for _ in range(2 if info.optim_cls in MOMENTUM else 20):
        loss = sampler.step(closure)
        for scheduler in schedulers:
            scheduler.step(*([loss.item()] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return before, closure().item()


@each_info
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("scheduled", [True, False])
def test_it_goes_in_the_right_direction(info, contiguous, scheduled):
    for schedulers in info.scheduler_inputs if scheduled else [[]]:
        for kwargs in inputs_of(info):
            shapes = [(10, 5), (10,)] if contiguous else [(10, 5, 2), (10, 2)]
            params = [draw(shape, seed=i) for i, shape in enumerate(shapes)]
            if not contiguous:
                params = [param[..., 0] for param in params]
            weight, bias = map(Parameter, params)
            assert weight.is_contiguous() == contiguous
            before, after = descend(info, [weight, bias], weight, bias, kwargs, schedulers)
            assert after < before, kwargs


@each_info
@pytest.mark.parametrize("schedulers", INFOS[0].scheduler_inputs)
def test_groups_with_schedulers_go_in_the_right_direction(info, schedulers):
    for kwargs in inputs_of(info):
        weight, bias = Parameter(draw((10, 5))), Parameter(draw(10, seed=1))
        groups = [{"params": [weight]}, {"params": [bias], "lr": 0.01}]
        before, after = descend(info, groups, weight, bias, kwargs, schedulers)
        assert after < before, kwargs


@each_info
def test_a_group_has_its_own_lr(info):
    for kwargs in inputs_of(info):
        moving, still = make(20, 20)
        before = [p.detach().clone() for p in (moving, still)]
        kwargs.setdefault("lr", 0.05)
        info.optim_cls([{"params": [moving]}, {"params": [still], "lr": 0.0}], **kwargs).step()
        assert not torch.equal(moving, before[0])
        assert torch.equal(still, before[1])


def test_a_group_has_its_own_weight_decay(kind):
    """Without noise and gradient only it moves the weights, towards zero."""
    decaying, still = make(20, 20)
    before = [p.detach().clone() for p in (decaying, still)]
    for p in (decaying, still):
        p.grad.zero_()
    groups = [{"params": [decaying], "weight_decay": 0.1}, {"params": [still]}]
    kind(groups, lr=0.1, noise_level=0.0).step()
    assert ((decaying / before[0] > 0) & (decaying / before[0] < 1)).all()
    assert torch.equal(still, before[1])


@each_info
def test_a_tensor_lr_is_its_number(info):
    for shape in ((), (1,), (1, 1)):
        for kwargs in inputs_of(info):
            (a,), (b,) = make(30), make(30)
            lr = torch.full(shape, float(kwargs.pop("lr", 0.02)))
            one = info.optim_cls([a], lr=lr, **kwargs, seed=0)
            other = info.optim_cls([b], lr=lr.item(), **kwargs, seed=0)
            for _ in range(3):
                one.step()
                other.step()
            assert same_bits(a, b)
            assert lr == other.param_groups[0]["lr"], "a step wrote the lr"


def test_complex_weights_are_sampled_as_their_real_view(kind):
    z = torch.complex(draw((4, 3)), draw((4, 3), seed=1))
    start = z.clone()
    view = torch.view_as_real(z)
    (twin,) = [leaf(view)]
    view.grad = draw((4, 3, 2), seed=2)
    twin.grad = view.grad.clone()
    kind([view], seed=0, localization=1.0).step()
    kind([twin], seed=0, localization=1.0).step()
    assert same_bits(torch.view_as_real(z), twin)
    assert (z.real != start.real).all()
    assert (z.imag != start.imag).all()


def test_weights_on_meta_and_sparse_gradients_are_refused(kind):
    with pytest.raises(TypeError, match=r"params\[0\] must have storage, got a meta tensor"):
        kind([torch.zeros(3, device="meta")])
    (param,) = make((3, 3))
    before = param.detach().clone()
    param.grad = param.grad.to_sparse()
    sampler = kind([param], seed=0)
    with pytest.raises(RuntimeError, match=r"params\[0\].grad must be dense"):
        sampler.step()
    assert same_bits(param, before)
    assert sampler.param_groups[0]["step"] == 0


@pytest.mark.parametrize("lr", [-1.0, -1e-300, math.nan, math.inf, torch.tensor(-1e-3)])
def test_an_lr_out_of_range_is_refused(kind, lr):
    with pytest.raises(ValueError, match="lr must be finite and >= 0, got"):
        kind(make(3), lr=lr)


def test_a_grad_scaler_skips_a_step_with_infinite_gradients(kind):
    (param,) = make(5)
    before = param.detach().clone()
    scaler = torch.amp.GradScaler("cpu")
    sampler = kind([param], seed=0)
    scaler.scale(torch.tensor(1.0))
    param.grad[0] = math.inf
    scaler.step(sampler)
    scaler.update()
    assert same_bits(param, before)
    assert sampler.param_groups[0]["step"] == 0


@each_info
def test_without_gradients_a_step_changes_nothing_but_its_count(info):
    for kwargs in inputs_of(info):
        params = make((10, 5), 10)
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = None
        sampler = info.optim_cls(params, **kwargs, seed=0)
        sampler.step()
        assert all(same_bits(p, b) for p, b in zip(params, before, strict=True))
        assert all("born" not in state for state in sampler.state.values())
        assert sampler.param_groups[0]["step"] == 1


@each_info
def test_without_noise_and_with_zero_gradients_weights_stay(info):
    for kwargs in inputs_of(info):
        (param,) = make(30)
        before = param.detach().clone()
        param.grad.zero_()
        kwargs["weight_decay"] = 0.0
        sampler = info.optim_cls([param], **kwargs, noise_level=0.0)
        for _ in range(2):
            sampler.step()
        assert torch.equal(param, before)


def test_torchs_list_of_inputs_is_not_empty():
    """What is reused here is private to torch."""
    (sgld, rmsprop, adam, *_) = INFOS
    assert sgld.optim_cls is SGLD
    for info, name in ((rmsprop, "eps"), (adam, "eps")):
        assert any(given.get(name) == 1e-6 for given in inputs_of(info))
    for info in INFOS:
        assert len(inputs_of(info)) >= 14
        assert any(isinstance(given.get("lr"), torch.Tensor) for given in inputs_of(info))
        assert len(info.optim_error_inputs_func("cpu", torch.float32)) >= 25
        assert len(info.scheduler_inputs) >= 14
