"""The state beside the weights: its precision, whose it is, and when it begins."""

import copy
import pickle

import pytest
import torch

from fastllc import BAOAB, SGHMC, SGLD, SGNHT, AdamSGLD, PrecisionWarning, RMSpropSGLD
from fastllc.kernels import real_dtype
from helpers import DTYPES, LOW, OWN, SAMPLERS, check_step, draw, make, same_bits

RESIDUALS = {torch.bfloat16: torch.int16, torch.float16: torch.float32}
STATEFUL = [sampler for sampler in SAMPLERS if sampler is not SGLD]


def tensors(sampler):
    return [t for s in sampler.state.values() for t in s.values() if isinstance(t, torch.Tensor)]


def all_dtypes():
    return [make((30, 3), dtype=dtype)[0] for dtype in DTYPES + LOW]


def check_dtypes(sampler):
    for group in sampler.param_groups:
        for param in group["params"]:
            state = sampler.state[param]
            wanted = dict.fromkeys(sampler.state_names, real_dtype(param.dtype))
            wanted["w0"] = param.dtype
            if param.dtype in LOW:
                wanted["residual"] = RESIDUALS[param.dtype]
            found = {name: t.dtype for name, t in state.items() if isinstance(t, torch.Tensor)}
            assert found == wanted


def duplicate(sampler, how):
    """A sampler in the same state, over parameters of its own."""
    params = [p for group in sampler.param_groups for p in group["params"]]
    if how == "load":
        others = [p.detach().clone().requires_grad_() for p in params]
        other = type(sampler)(others, localization=1.0)
        other.load_state_dict(sampler.state_dict())
    else:
        other = copy.deepcopy(sampler) if how == "deepcopy" else None
        other = other or pickle.loads(pickle.dumps(sampler))
        others = [p for group in other.param_groups for p in group["params"]]
    for p, q in zip(params, others, strict=True):
        q.grad = p.grad.clone()
    return other, others


@pytest.mark.parametrize("how", ["load", "deepcopy", "pickle"])
def test_copies_keep_every_precision_and_share_no_memory(kind, how):
    params = all_dtypes()
    masks = [draw((30, 3)) > 0, None, draw((30, 3), seed=1) > 0, None]
    sampler = kind(params, localization=1.0, mask=masks, seed=0)
    for _ in range(2):
        sampler.step()
    other, others = duplicate(sampler, how)
    check_dtypes(sampler)
    check_dtypes(other)
    assert [m is None or m.dtype for m in other.param_groups[0]["mask"]] == [
        torch.bool, True, torch.bool, True,
    ]  # fmt: skip
    theirs = {t.data_ptr() for t in tensors(other)}
    assert theirs.isdisjoint(t.data_ptr() for t in tensors(sampler))
    for _ in range(2):  # in turns, as two chains would
        sampler.step()
        check_step(other)
        for p, q in zip(params, others, strict=True):
            assert same_bits(p, q)


def test_a_state_dict_of_an_earlier_version(kind):
    """Keys that it lacks have the values that the sampler was made with."""
    (a,), (b,) = make((30, 3)), make((30, 3))
    mask = draw((30, 1)) > 0
    sampler = kind([a], localization=1.0, seed=3, nbeta=7.0)
    state = copy.deepcopy(sampler.state_dict())
    kept = {"lr", "localization", "nbeta", "params", "seed", "step", "first_param", "noise_format"}
    for group in state["param_groups"]:
        for name in set(group) - kept:
            del group[name]
    other = kind([b], localization=2.0, nbeta=1.0, mask=mask)
    other.load_state_dict(state)
    group = other.param_groups[0]
    assert group["nbeta"] == 7.0
    assert all(group[name] == value for name, value in OWN[type(other)].items())
    before = b.detach().clone()
    for _ in range(2):
        other.step()
    fixed = ~mask.expand(30, 3)
    assert same_bits(b[fixed], before[fixed])
    assert not torch.equal(b, before)


def test_loading_adds_no_keys(kind):
    sampler = kind(make(3), seed=0)
    sampler.step()
    group = set(sampler.param_groups[0])
    sampler.load_state_dict(sampler.state_dict())
    assert set(sampler.param_groups[0]) == group
    assert set(copy.deepcopy(sampler).param_groups[0]) == group
    sampler.add_param_group({"params": make(4)})
    assert set(sampler.param_groups[1]) == group


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_a_group_added_later_is_born_then(kind, dtype):
    """Its first step is like a first step, under the step's number: with fresh state."""
    (a,), (b,), (c,) = make(30, dtype=dtype), make(40, dtype=dtype), make(50, dtype=dtype)
    sampler = kind([a], localization=1.0, seed=6)
    for _ in range(2):
        sampler.step()
    sampler.add_param_group({"params": b, "lr": 0.02})
    b.grad, grad = None, b.grad
    check_step(sampler)
    assert "born" not in sampler.state[b], "it has no gradient yet"
    b.grad = grad
    sampler.add_param_group({"params": c})
    for _ in range(3):
        check_step(sampler)
    if sampler.state_names:
        assert [sampler.state[p]["born"] for p in (a, b, c)] == [0, 3, 3]


def test_thermostats_belong_to_all_groups():
    a, b, c = make(30, 40, 50)
    sampler = SGNHT([a, b], diffusion_factor=0.3, seed=0)
    assert sampler.thermostat == 0.3
    for _ in range(2):
        sampler.step()
    moved = sampler.thermostat
    assert moved != 0.3
    sampler.add_param_group({"params": c, "lr": 0.05})
    assert sampler.param_groups[1]["diffusion_factor"] == 0.3
    assert sampler.param_groups[1]["thermostat"] == moved
    check_step(sampler)
    assert len({group["thermostat"] for group in sampler.param_groups}) == 1
    assert sampler.thermostat != moved


def test_a_thermostat_starts_at_the_diffusion_factor_of_its_groups():
    (a,), (b,) = make(30), make(30)
    one = SGNHT([{"params": [a], "diffusion_factor": 0.3}], seed=0)
    other = SGNHT([b], diffusion_factor=torch.tensor(0.3, dtype=torch.float64), seed=0)
    assert one.thermostat == other.thermostat == 0.3
    for _ in range(2):
        one.step()
        other.step()
    assert one.thermostat == other.thermostat
    assert type(other.thermostat) is float
    assert same_bits(a, b)


@pytest.mark.parametrize("sampler", STATEFUL)
def test_state_that_is_replaced_between_steps_counts(sampler):
    (param,) = make(100)
    made = sampler([param], seed=0)
    for _ in range(2):
        made.step()
    for name in made.state_names:
        made.state[param][name] = made.state[param][name] * 0.5 + 1
        check_step(made)
    del made.state[param][made.state_names[0]]  # it begins anew
    made.step()
    assert made.state[param]["born"] == made.param_groups[0]["step"] - 1
    check_step(made)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_rounding_may_change_between_steps(kind, dtype):
    (param,) = make(300, dtype=dtype)
    sampler = kind([param], lr=0.1, seed=0)
    for rounding in ("exact", "stochastic", "exact"):
        sampler.param_groups[0]["rounding"] = rounding
        for _ in range(2):
            check_step(sampler)
        assert ("residual" in sampler.state.get(param, ())) == (rounding == "exact")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_small_steps_of_randomly_rounded_weights_are_warned_of(sampler, dtype):
    (param,) = make(300, dtype=dtype)
    with pytest.warns(PrecisionWarning, match=r"params\[0\].* raise lr") as seen:
        sampler([param], lr=1e-8, rounding="stochastic")
    assert seen[0].filename == __file__
    made = sampler(make(3))
    with pytest.warns(PrecisionWarning) as seen:
        made.add_param_group({"params": [param], "lr": 1e-8, "rounding": "stochastic"})
    assert seen[0].filename == __file__
    sampler([param], lr=1e-8)


def test_what_each_sampler_keeps():
    names = {
        SGLD: set(),
        RMSpropSGLD: {"square_avg", "born"},
        AdamSGLD: {"momentum", "square_avg", "born"},
        SGHMC: {"momentum", "born"},
        SGNHT: {"momentum", "born"},
        BAOAB: {"momentum", "born"},
    }
    for sampler, kept in names.items():
        (param,) = make(3)
        made = sampler([param], seed=0)
        assert made.state_dict()["state"] == {}
        made.step()
        assert set(made.state.get(param, ())) == kept
