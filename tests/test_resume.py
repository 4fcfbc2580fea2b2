"""Saving, loading and copying: what follows is what would have followed."""

import copy
import io
import pickle

import pytest
import torch

from helpers import (
    DTYPES,
    OWN,
    SAMPLERS,
    draw,
    make,
    same_bits,
)
from torch_inputs import each_info, inputs_of

SCRIPT = """
import torch, fastllc

def build():
    g = torch.Generator().manual_seed(0)
    def draw(dtype):  # without its last column, then in parts, then in full
        params = [torch.randn(s, generator=g).to(dtype).requires_grad_() for s in [(6, 50), 40, ()]]
        masks = [torch.arange(50) < 49, torch.rand(40, generator=g) < 0.3, None]
        return {"params": params, "mask": masks}
    groups = [
        draw(torch.float32),
        draw(torch.float64) | {"localization": 2.0, "lr": torch.tensor(0.003)},
        draw(torch.bfloat16),
        draw(torch.float16),
        draw(torch.bfloat16) | {"rounding": "stochastic", "mask": None},
        draw(torch.float16) | {"rounding": "stochastic", "bounding_box_size": None},
    ]
    sampler = fastllc.KIND(
        groups, lr=0.02, nbeta=4.0, weight_decay=0.1, bounding_box_size=0.4, save_metrics=True,
        seed=SEED, **OWN,
    )
    return sampler, torch.optim.lr_scheduler.ExponentialLR(sampler, gamma=0.9)

def advance(sampler, scheduler, n):
    for _ in range(n):
        sampler.zero_grad()
        for p in weights(sampler):
            (p.double() - 0.1).square().sum().backward()
        sampler.step()
        scheduler.step()

def weights(sampler):
    return [p for group in sampler.param_groups for p in group["params"]]

def save(parts, path):
    torch.save([weights(parts[0]), *[part.state_dict() for part in parts]], path)

def load(parts, path):
    values, *states = torch.load(path, weights_only=True)
    for p, value in zip(weights(parts[0]), values):
        p.data = value.data
    for part, state in zip(parts, states):
        part.load_state_dict(state)
"""


def same(a, b):
    """Whether two state dicts are the same, in every bit of their tensors."""
    if isinstance(a, torch.Tensor):
        return same_bits(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("seed", [2**64 - 1, None])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_saved_and_loaded_in_a_fresh_process_it_resumes_bit_for_bit(
    run_python, tmp_path, sampler, seed
):
    own = repr(OWN[sampler])
    script = SCRIPT.replace("KIND", sampler.__name__).replace("SEED", repr(seed))
    script = script.replace("OWN", own)
    tools = {}
    exec(script, tools)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        whole = tools["build"]()
        tools["advance"](*whole, 10)
        tools["save"](whole, tmp_path / "whole.pt")
        torch.manual_seed(7)
        half = tools["build"]()
        tools["advance"](*half, 5)
        tools["save"](half, tmp_path / "half.pt")
    done = run_python(
        script
        + f"""
parts = build()
load(parts, {str(tmp_path / "half.pt")!r})
advance(*parts, 5)
save(parts, {str(tmp_path / "end.pt")!r})
"""
    )
    assert done.returncode == 0, done.stderr
    end, wanted, before = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("end", "whole", "half")
    )
    assert same(end, wanted)
    for a, b in zip(end[0], before[0], strict=True):
        assert a.ndim == 0 or not torch.equal(a, b), "nothing moved"


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "deepcopy with hooks"])
def test_copies_go_their_own_way(kind, how):
    model = torch.nn.Linear(4, 3)
    for p in model.parameters():
        p.grad = draw(p.shape, seed=9)
    sampler = kind(model.parameters(), localization=2.0, save_metrics=True, seed=4)
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


def test_the_state_dict_is_deterministic_and_a_step_does_not_change_its_keys(kind):
    sampler = kind(make(3, 4), localization=1.0, seed=0)
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
def test_another_noise_format_is_refused(kind, found):
    (param,) = make(3)
    sampler = kind([param], seed=0)
    state = copy.deepcopy(sampler.state_dict())
    if found is None:
        del state["param_groups"][0]["noise_format"]
    else:
        state["param_groups"][0]["noise_format"] = found
    state["param_groups"][0]["seed"] = 5
    with pytest.raises(ValueError, match=f"noise_format must be 1, .* got {found}"):
        sampler.load_state_dict(state)
    assert sampler.param_groups[0]["seed"] == 0


def test_loading_into_a_sampler_that_has_stepped(kind):
    """Nothing of what was cached before may survive."""
    (a,), (b,) = make(30), make(30)
    source = kind([a], lr=0.3, localization=4.0, seed=1)
    target = kind([b], lr=0.1, localization=1.0, bounding_box_size=0.1, seed=2, save_metrics=True)
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


def test_state_dict_hooks(kind):
    sampler = kind(make(3), seed=0)
    calls = []
    sampler.register_state_dict_pre_hook(lambda _: calls.append("pre"))
    sampler.register_state_dict_post_hook(lambda _, state: calls.append("post"))
    sampler.register_load_state_dict_pre_hook(lambda _, state: calls.append("load pre"))
    sampler.register_load_state_dict_post_hook(lambda _: calls.append("load post"))
    sampler.load_state_dict(sampler.state_dict())
    assert calls == ["pre", "post", "load pre", "load post"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_anchors_keep_their_precision_when_loaded(kind, dtype):
    (param,) = make(30, dtype=dtype)
    sampler = kind([param], localization=1.0, seed=0)
    anchor = sampler.state[param]["w0"].clone()
    sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert same_bits(sampler.state[param]["w0"], anchor)


@each_info
def test_a_deep_copy_has_all_public_attributes(info):
    for kwargs in inputs_of(info):
        sampler = info.optim_cls(make(20), **kwargs, seed=0)
        for _ in range(2):
            names = {name for name in dir(sampler) if not name.startswith("_")}
            assert names == {n for n in dir(copy.deepcopy(sampler)) if not n.startswith("_")}
            sampler.step()


@each_info
@pytest.mark.parametrize("named", ["source", "target", "both"])
def test_state_dicts_with_and_without_names_fit_each_other(info, named):
    for kwargs in inputs_of(info):
        (a,), (b,) = make(30), make(30)
        params = {
            side: [("weight", p)] if named in (side, "both") else [p]
            for side, p in (("source", a), ("target", b))
        }
        source = info.optim_cls(params["source"], **kwargs, seed=1)
        source.step()
        target = info.optim_cls(params["target"], **copy.deepcopy(kwargs), seed=2)
        target.load_state_dict(source.state_dict())
        b.data.copy_(a)
        for _ in range(2):
            source.step()
            target.step()
        assert same_bits(a, b)
