"""Every sampler as a torch optimizer, whatever torch does around it."""

import copy
import inspect
import math

import pytest
import torch

from fastllc import (
    SGLD,
)
from fastllc.samplers.settings import Common
from helpers import (
    SAMPLERS,
    check_step,
    draw,
    lay_out,
    leaf,
    make,
    same_bits,
)


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


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_autograd_notices_that_a_saved_weight_was_sampled(kind, layout):
    param, _ = lay_out(draw((4, 5)), layout)
    param.requires_grad_()
    frozen = leaf(draw(3))
    sampler = kind([param, frozen], seed=0)
    loss = param.square().sum()
    param.grad = torch.ones_like(param)
    versions = param._version, frozen._version
    sampler.step()
    assert param._version > versions[0]
    assert frozen._version == versions[1], "nothing of it was written"
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_requires_grad_and_graph_are_as_before(kind):
    (param,) = make(3)
    sampler = kind([param], localization=1.0, seed=0)
    sampler.step()
    assert param.requires_grad
    assert param.is_leaf
    assert param.grad_fn is None
    assert not sampler.state[param]["w0"].requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("layout", ["contiguous", "sliced"])
def test_a_step_inside_any_gradient_mode(kind, context, layout):
    plain, _ = lay_out(draw((5, 6)), layout)
    inside, _ = lay_out(draw((5, 6)), layout)
    for p in (plain, inside):
        p.grad = draw((5, 6), seed=3)
    kind([plain], seed=0, localization=1.0, save_metrics=True).step()
    sampler = kind([inside], seed=0, localization=1.0, save_metrics=True)
    with context():
        sampler.step()
        sampler.get_metrics()
    assert same_bits(plain, inside)
    sampler.step()


def test_a_sampler_made_in_inference_mode_works_outside(kind):
    (param,) = make(6)
    with torch.inference_mode():
        sampler = kind([param], seed=0, localization=1.0)
    sampler.step()
    twin = copy.deepcopy(sampler)
    sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
    sampler.step()
    twin.step()
    assert same_bits(param, twin.param_groups[0]["params"][0])


def test_inference_tensors_are_sampled(kind):
    with torch.inference_mode():
        param = draw(6)
        param.grad = draw(6, seed=1)
    (plain,) = make(6)
    plain.grad = draw(6, seed=1)
    kind([param], seed=0).step()
    kind([plain], seed=0).step()
    assert same_bits(param, plain)


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("device", ["meta"])
def test_a_default_device_changes_nothing(kind, device, seed):
    """Weights on the CPU stay CPU work, whatever torch.set_default_device says."""
    with torch.random.fork_rng():
        (a,), (b,) = make(6), make(6)
        torch.manual_seed(0)
        one = kind([a], localization=1.0, save_metrics=True, seed=seed)
        one.step()
        torch.manual_seed(0)
        with torch.device(device):
            other = kind([b], localization=1.0, save_metrics=True, seed=seed)
            other.step()
            metrics = other.get_metrics()
    assert same_bits(a, b)
    assert metrics == one.get_metrics()


def test_a_default_dtype_changes_nothing(kind):
    (a,), (b,) = make(300), make(300)
    kind([a], localization=1.0, seed=0).step()
    torch.set_default_dtype(torch.float64)
    try:
        kind([b], localization=1.0, seed=0, lr=torch.tensor(0.01)).step()
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


def test_weights_that_move_in_memory_are_followed(kind):
    a, b = make((300, 3)), make((300, 3))
    sampler, twin = kind(a, seed=0, localization=1.0), kind(b, seed=0, localization=1.0)
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


def test_gradients_that_are_freed_and_made_again_each_step(kind):
    a, b = make((64, 64), 5), make((64, 64), 5)
    sampler, twin = kind(a, seed=0), kind(b, seed=0)
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


def test_swapped_tensors_are_followed(kind):
    (a,) = make(5)
    sampler = kind([a], seed=0)
    sampler.step()
    after_one = a.detach().clone()
    other = leaf(torch.zeros(5))
    torch.utils.swap_tensors(a, other)
    a.grad = torch.zeros(5)
    check_step(sampler)
    assert torch.equal(other.detach(), after_one)
    assert not torch.equal(a.detach(), torch.zeros(5))
