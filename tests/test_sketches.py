"""What get_sketches returns: components of the step, whatever groups, dtypes and state do."""

import copy
import math

import pytest
import torch

from fastllc import BAOAB, SGHMC, SGLD, SGNHT, AdamSGLD, RMSpropSGLD, Sketches, kernels, reference
from fastllc._core import COMPONENTS
from test_rules import DTYPES

SAMPLERS = [SGLD, SGHMC, BAOAB, SGNHT, RMSpropSGLD, AdamSGLD]


def make(cls, dtype=torch.float32, shapes=((40, 50), (33,)), **settings):
    generator = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes:
        p = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        p.grad = torch.randn(shape, generator=generator).to(dtype)
        params.append(p)
    options = {"lr": 1e-2, "nbeta": 3.0, "localization": 0.5, "weight_decay": 0.1, "seed": 4}
    return cls(params, **(options | settings)), params


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cls", SAMPLERS)
def test_norms_are_those_of_the_metrics_where_no_buckets_are_shared(cls, dtype):
    """65536 buckets for 2033 elements: few meet, and squares add up."""
    sampler, params = make(cls, dtype, save_metrics=True, sketch_dim=65536)
    for _ in range(3):
        for p in params:
            p.grad = p.detach() * 0.5 + 1
        sampler.step()
    metrics, sketches = sampler.get_metrics(), sampler.get_sketches()
    for name in Sketches._fields:
        found = getattr(sketches, name)
        assert found.dtype == torch.float32
        assert found.shape == (65536,)
        norm = getattr(metrics, name).item()
        # the variance of ||Sv||^2 is at most 2 ||v||^4 / dim
        assert found.double().square().sum().item() == pytest.approx(
            norm**2, rel=5 * math.sqrt(2 / 65536)
        )
    prior = sketches.localization + sketches.weight_decay
    bound = metrics.scaled_grad * (metrics.localization + metrics.weight_decay)
    assert (sketches.scaled_grad @ prior).item() == pytest.approx(
        metrics.dot_grad_prior.item(), abs=5 * bound.item() * math.sqrt(2 / 65536)
    )


def test_names_are_those_of_native_code():
    assert Sketches._fields == COMPONENTS


def test_sketching_changes_neither_weights_nor_metrics():
    plain, a = make(SGLD, save_metrics=True)
    sketched, b = make(SGLD, save_metrics=True, sketch_dim=32, sketch_seed=5)
    for sampler in (plain, sketched):
        sampler.step()
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert plain.get_metrics() == sketched.get_metrics()


def test_groups_have_their_own_coefficients():
    generator = torch.Generator().manual_seed(0)
    params = [torch.zeros(500, requires_grad=True) for _ in range(3)]
    for p in params:
        p.grad = torch.randn(500, generator=generator)
    sampler = SGLD(
        [{"params": params[:2], "lr": 0.1, "nbeta": 2.0}, {"params": params[2:], "lr": 0.3}],
        seed=0,
        sketch_dim=64,
        sketch_seed=8,
    )
    sampler.step()
    factors = [0.05 * 2, 0.05 * 2, 0.15]
    wanted = sum(
        reference.sketch(f * p.grad.double(), 64, seed=8, param=i)
        for i, (f, p) in enumerate(zip(factors, params, strict=True))
    )
    found = sampler.get_sketches().scaled_grad
    assert torch.allclose(found, wanted.float(), atol=1e-5 * wanted.abs().max().item())


def test_dtypes_may_mix():
    shapes = [(40000,), (30,), (20000,), (5,)]
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float64]
    params = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        p = torch.randn(shape).to(dtype).requires_grad_()
        p.grad = torch.randn(shape).to(dtype)
        params.append(p)
    sampler = SGLD(params, lr=2.0, seed=0, sketch_dim=300)
    sampler.step()
    wanted = sum(
        reference.sketch(p.grad, 300, seed=0, param=i) for i, p in enumerate(params)
    ).float()
    assert torch.allclose(
        sampler.get_sketches().scaled_grad, wanted, atol=1e-5 * wanted.abs().max().item()
    )


def test_weights_that_are_not_finite_reach_no_other_component():
    w = torch.ones(100, requires_grad=True)
    w.grad = torch.ones(100)
    sampler = SGLD([w], lr=0.1, seed=0, sketch_dim=16)
    with torch.no_grad():
        w[3] = math.inf
    with pytest.warns(RuntimeWarning):
        sampler.step()
    sketches = sampler.get_sketches()
    assert all(x.isfinite().all() for x in sketches)
    assert not sketches.localization.any()
    assert not sketches.weight_decay.any()


def test_the_fallback_gives_the_same(monkeypatch):
    fused, _ = make(SGHMC, sketch_dim=77, sketch_seed=6)
    fused.step()
    monkeypatch.setattr(kernels, "has_kernel", lambda tensor: False)
    with pytest.warns(UserWarning, match="no native kernel"):
        slow, _ = make(SGHMC, sketch_dim=77, sketch_seed=6)
    slow.step()
    for found, wanted in zip(slow.get_sketches(), fused.get_sketches(), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5 * wanted.abs().max().item())


def test_a_state_dict_takes_them_along():
    sampler, params = make(SGLD, sketch_dim=40, sketch_seed=9)
    sampler.step()
    saved = copy.deepcopy(sampler.state_dict())
    weights = [p.detach().clone() for p in params]
    sampler.step()
    wanted = sampler.get_sketches()

    other, others = make(SGLD)
    other.load_state_dict(saved)
    with pytest.raises(RuntimeError, match="needs a step"):
        other.get_sketches()
    with torch.no_grad():
        for p, w in zip(others, weights, strict=True):
            p.copy_(w)
    other.step()
    assert all(map(torch.equal, other.get_sketches(), wanted))


def test_a_state_dict_of_before_them_is_one_without():
    sampler, _ = make(SGLD)
    saved = sampler.state_dict()
    for group in saved["param_groups"]:
        del group["sketch_dim"], group["sketch_seed"]
    sampler.load_state_dict(saved)
    sampler.step()
    with pytest.raises(RuntimeError, match="get_sketches needs sketch_dim"):
        sampler.get_sketches()


def test_they_can_be_turned_on_and_off():
    sampler, _ = make(SGLD)
    sampler.step()
    with pytest.raises(RuntimeError, match="get_sketches needs sketch_dim"):
        sampler.get_sketches()
    for dim in (8, 20):
        sampler.param_groups[0]["sketch_dim"] = dim
        sampler.step()
        assert sampler.get_sketches().noise.shape == (dim,)
    sampler.param_groups[0]["sketch_seed"] = 1
    before = sampler.get_sketches().noise
    sampler.step()
    assert not torch.equal(sampler.get_sketches().noise, before)
    sampler.param_groups[0]["sketch_dim"] = None
    sampler.step()
    with pytest.raises(RuntimeError, match="get_sketches needs sketch_dim"):
        sampler.get_sketches()


def test_what_is_returned_is_the_caller_s():
    sampler, _ = make(SGLD, sketch_dim=8)
    sampler.step()
    first = sampler.get_sketches()
    kept = [x.clone() for x in first]
    sampler.step()
    assert all(map(torch.equal, first, kept))
    sampler.get_sketches().noise.zero_()
    assert sampler.get_sketches().noise.any()


@pytest.mark.parametrize("cls", SAMPLERS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sketch_dim": 0}, ValueError, r"sketch_dim must be None or in \[1, 65536\], got 0"),
        ({"sketch_dim": -3}, ValueError, "sketch_dim must be"),
        ({"sketch_dim": 65537}, ValueError, "sketch_dim must be"),
        ({"sketch_dim": 2**80}, ValueError, "sketch_dim must be"),
        ({"sketch_dim": 64.0}, TypeError, "sketch_dim must be an int"),
        ({"sketch_dim": "64"}, TypeError, "sketch_dim must be an int"),
        ({"sketch_dim": True}, TypeError, "sketch_dim must be an int"),
        ({"sketch_dim": 4, "sketch_seed": -1}, ValueError, "sketch_seed must be in"),
        ({"sketch_dim": 4, "sketch_seed": 2**64}, ValueError, "sketch_seed must be in"),
        ({"sketch_dim": 4, "sketch_seed": 0.5}, TypeError, "sketch_seed must be an int"),
        ({"sketch_seed": None}, TypeError, "sketch_seed must be an int"),
    ],
)
def test_bad_input(cls, options, error, message):
    with pytest.raises(error, match=message):
        make(cls, **options)
    sampler, params = make(cls)
    before = [p.detach().clone() for p in params]
    sampler.param_groups[0].update(options)
    with pytest.raises(error, match=message):
        sampler.step()
    assert all(map(torch.equal, params, before))


@pytest.mark.parametrize("name", ["sketch_dim", "sketch_seed"])
def test_groups_share_one_value(name):
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match=f"{name} must be that of the other groups"):
        SGLD([{"params": [a]}, {"params": [b], name: 5}], sketch_dim=4)
    sampler = SGLD([{"params": [a]}, {"params": [b]}], sketch_dim=4)
    sampler.param_groups[1][name] = 5
    a.grad = torch.zeros(3)
    with pytest.raises(ValueError, match=f"{name} must be the same in all groups"):
        sampler.step()


def test_without_a_step_or_gradients_there_is_nothing_to_return():
    sampler, params = make(SGLD, sketch_dim=4)
    with pytest.raises(RuntimeError, match="get_sketches needs a step with gradients first"):
        sampler.get_sketches()
    sampler.step()
    for p in params:
        p.grad = None
    sampler.step()
    with pytest.raises(RuntimeError, match="needs a step with gradients"):
        sampler.get_sketches()
