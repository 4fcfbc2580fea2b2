"""A sampler under torch's modes: gradient modes, defaults, compiled loops."""

import copy

import pytest
import torch

from fastllc import SGLD
from helpers import draw, lay_out, leaf, make, same_bits


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
