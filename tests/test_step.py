"""A sampler's step against the reference, bit by bit, and the settings that it follows."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastllc import DivergenceWarning, PrecisionWarning
from helpers import (
    CHANGED,
    DTYPES,
    LOW,
    OWN,
    SAMPLERS,
    SENTINEL,
    check_step,
    draw,
    lay_out,
    make,
    same_bits,
)

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
masks = st.sampled_from([None, "all", "none", "some", "few"])
members = st.tuples(shapes, st.sampled_from(DTYPES + LOW), layouts, layouts, masks)
options = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.0, 1e-6, 0.01, 0.7]),
        "nbeta": st.sampled_from([0.0, 1.0, 37.5]),
        "localization": st.sampled_from([0.0, 0.3, 100.0]),
        "weight_decay": st.sampled_from([0.0, 0.2]),
        "noise_level": st.sampled_from([0.0, 1.0, 2.5]),
        "rounding": st.sampled_from(["exact", "stochastic"]),
        "bounding_box_size": st.sampled_from([None, 1e-3, 0.5, math.inf]),
    }
)


def draw_mask(shape, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    share = {"all": 2.0, "none": 0.0, "some": 0.5, "few": 0.01}[kind]
    return torch.rand(shape, generator=generator) < share


@settings(max_examples=120)
@given(
    sampler=st.sampled_from(SAMPLERS),
    groups=st.lists(
        st.tuples(st.lists(members, min_size=1, max_size=2), options), min_size=1, max_size=3
    ),
    seed=st.integers(0, 2**64 - 1),
    save_metrics=st.booleans(),
)
def test_a_step_is_the_reference_bit_for_bit(sampler, groups, seed, save_metrics):
    params, bases, param_groups = [], [], []
    for group, option in groups:
        own, masks = [], []
        for shape, dtype, layout, grad_layout, mask in group:
            view, base = lay_out(draw(shape, dtype, seed=len(params)), layout)
            view.grad, _ = lay_out(draw(shape, dtype, seed=50 + len(params)), grad_layout)
            masks.append(mask and draw_mask(shape, mask, seed=len(params)))
            own.append(view)
            params.append(view)
            bases.append(base)
        param_groups.append({"params": own, "mask": masks, **option})
    strides = [p.stride() for p in params]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        warnings.simplefilter("ignore", DivergenceWarning)  # float16 overflows soon
        sampler = sampler(param_groups, seed=seed, save_metrics=save_metrics, **OWN[sampler])
        for _ in range(3):
            check_step(sampler)
    for param, base, stride in zip(params, bases, strides, strict=True):
        assert param.stride() == stride
        param.fill_(SENTINEL)
        assert (base == SENTINEL).all(), "wrote beside the parameter"


def test_lr_may_be_a_tensor_that_changes_in_place(kind):
    (param,) = make(300)
    lr = torch.tensor(0.1)
    sampler = kind([param], lr=lr, seed=5)
    for value in [0.1, 0.1, 0.02, 0.0, 0.3]:
        lr.fill_(value)
        assert sampler.setting(sampler.param_groups[0]).lr == float(torch.tensor(value))
        check_step(sampler)
    assert sampler.param_groups[0]["lr"] is lr


def test_a_tensor_may_take_the_place_of_a_number_that_it_equals(kind):
    """A single-precision 0.1 compares equal to 0.1, and is larger."""
    params, twins = (make((3, 3), dtype=torch.float64) for _ in range(2))
    sampler, twin = kind(params, lr=0.1, seed=0), kind(twins, lr=0.1, seed=0)
    sampler.step()
    twin.step()
    sampler.param_groups[0]["lr"] = torch.tensor(0.1)
    twin.param_groups[0]["lr"] = float(torch.tensor(0.1))
    for _ in range(2):
        sampler.step()
        twin.step()
        assert torch.equal(params[0], twins[0])
    sampler.param_groups[0]["lr"].fill_(0.5)
    twin.param_groups[0]["lr"] = 0.5
    sampler.step()
    twin.step()
    assert torch.equal(params[0], twins[0])


def test_metrics_may_be_switched_on_and_off_between_steps(kind):
    params = make((3, 3), 4)
    sampler = kind([{"params": params[:1]}, {"params": params[1:]}], localization=1.0, seed=0)
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


def test_settings_that_change_between_steps_apply_to_the_next(kind):
    (param,) = make(300)
    sampler = kind([param], localization=1.0, seed=5)
    changes = [
        {},
        {"nbeta": 7.0},
        {"lr": 0.05, "weight_decay": 0.5},
        {"noise_level": 0.1},
        {"bounding_box_size": 0.2},
        {"localization": 0.0},
        {"bounding_box_size": None},
    ]
    changes += [{name: value} for name, value in CHANGED[type(sampler)].items()]
    for change in changes:
        sampler.param_groups[0].update(change)
        check_step(sampler)


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_without_native_code_the_reference_steps(kind, dtype, monkeypatch):
    params, twins = make((30, 9), 5, dtype=dtype), make((30, 9), 5, dtype=dtype)
    options = {"localization": 1.0, "bounding_box_size": 0.3, "save_metrics": True, "seed": 2}
    options["mask"] = [draw((30, 1)) > 0, None]
    native = kind(params, **options)
    monkeypatch.setattr("fastllc.kernels.has_kernel", lambda tensor: False)
    with pytest.warns(UserWarning, match="no native kernel for cpu"):
        plain = kind(twins, **options)
    plain.step()
    monkeypatch.undo()
    native.step()
    for p, q in zip(params, twins, strict=True):
        assert same_bits(p, q)
        assert native.state[p].keys() == plain.state[q].keys()
    for a, b in zip(native.get_metrics(), plain.get_metrics(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert getattr(plain, "thermostat", 0) == pytest.approx(getattr(native, "thermostat", 0))
    twins[1].grad = None
    check_step(plain)  # by native code, from the reference's state
