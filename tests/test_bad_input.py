"""What is refused: with a message that names it, and before anything has changed."""

import copy
import math
import re
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from fastllc import (
    SGLD,
    DivergenceWarning,
    localization_penalty,
    localization_penalty_and_grad,
    standard_normal,
)
from fastllc.samplers.sampler import Sampler

F32, F64 = torch.float32, torch.float64
SETTINGS = ["lr", "nbeta", "localization", "weight_decay", "noise_level", "bounding_box_size"]


def make(*shapes, dtype=F32):
    params = []
    for i, shape in enumerate(shapes):
        generator = torch.Generator().manual_seed(i)
        param = nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator))
        param.grad = torch.randn(param.shape, dtype=dtype, generator=generator)
        params.append(param)
    return params


def snapshot(sampler, tensors):
    return (
        [bytes(t.detach().clone().contiguous().numpy().tobytes()) for t in tensors],
        [
            {k: copy.copy(v) for k, v in g.items() if k in ("seed", "step", "nonfinite_step")}
            for g in sampler.param_groups
        ],
        torch.get_rng_state().tolist(),
    )


@contextmanager
def refuses(error, *words, sampler=None, watch=()):
    """The block raises, the message has all the words, and nothing of `watch` has changed."""
    before = snapshot(sampler, watch) if sampler else None
    with pytest.raises(error) as raised:
        yield
    if sampler:
        after = snapshot(sampler, watch)
        assert after[0] == before[0], "weights were written"
        assert after[1] == before[1], "seed or step changed"
        assert after[2] == before[2], "torch's generator advanced"
    missing = [w for w in words if w not in str(raised.value)]
    assert not missing, f"{missing} not in: {raised.value}"


# ---------------------------------------------------------------- construction


def overlapping(dtype=F32):
    return torch.zeros(8, dtype=dtype).as_strided((3, 3), (2, 1))


def sharing():
    base = torch.zeros(10)
    return [base[:6], base[5:]]


def sharing_across_dtypes():
    base = torch.zeros(8)
    return [base, base[4:].view(F64)]


BAD_PARAMS = {
    "int64": (lambda: [torch.zeros(3, dtype=torch.int64)], TypeError, "params[0]", "int64"),
    "uint8": (lambda: [torch.zeros(3, dtype=torch.uint8)], TypeError, "params[0]", "uint8"),
    "bool": (lambda: [torch.zeros(3, dtype=torch.bool)], TypeError, "params[0]", "bool"),
    "float8": (
        lambda: [torch.zeros(3).to(torch.float8_e4m3fn)], TypeError, "params[0]", "float8_e4m3fn",
    ),
    "complex": (
        lambda: [torch.zeros(3, dtype=torch.complex64)], TypeError, "params[0]", "complex64",
    ),
    "the second": (
        lambda: [*make(3), torch.zeros(3).short()], TypeError, "params[1]", "int16", "float16",
    ),
    "meta": (lambda: [torch.zeros(3, device="meta")], TypeError, "params[0]", "meta"),
    "mixed devices": (
        lambda: [*make(3), torch.zeros(3, device="meta")], TypeError, "params[1]", "meta",
    ),
    "sparse": (lambda: [torch.eye(3).to_sparse()], TypeError, "params[0]", "sparse_coo"),
    "sparse csr": (
        lambda: [torch.eye(3).to_sparse_csr()], TypeError, "params[0]", "sparse_csr",
    ),
    "mkldnn": (lambda: [torch.zeros(3).to_mkldnn()], TypeError, "params[0]", "mkldnn"),
    "lazy negative": (
        lambda: [torch.zeros(3, dtype=torch.complex64).conj().imag], TypeError, "params[0]", "neg",
    ),
    "expanded": (
        lambda: [torch.zeros(3, 1).expand(3, 4)], ValueError, "params[0]", "(3, 4)", "(1, 0)",
    ),
    "expanded scalar": (lambda: [torch.zeros(()).expand(5)], ValueError, "params[0]", "(0,)"),
    "overlapping": (lambda: [overlapping()], ValueError, "params[0]", "(3, 3)", "(2, 1)"),
    "overlapping float64": (lambda: [overlapping(F64)], ValueError, "params[0]", "(2, 1)"),
    "the same memory": (
        lambda: [p := torch.zeros(4), p.view(2, 2)], ValueError, "params", "share memory",
    ),
    "partly the same memory": (sharing, ValueError, "params", "share memory"),
    "the same memory as float64": (sharing_across_dtypes, ValueError, "params", "share memory"),
    "one inside the other": (
        lambda: [p := torch.zeros(40), p[3:4]], ValueError, "params", "share memory",
    ),
    "empty": (list, ValueError, "empty"),
    "empty group": (lambda: [{"params": []}], ValueError, "params", "empty"),
    "second group empty": (
        lambda: [{"params": make(3)}, {"params": []}], ValueError, "params", "empty",
    ),
    "no longer full": (
        lambda: [g := (p for p in make(3)), list(g)][0], ValueError, "empty",
    ),
    "a tensor": (lambda: torch.zeros(3), TypeError, "params", "iterable"),
    "a number": (lambda: 3, TypeError, ""),
    "numbers": (lambda: [3], TypeError, "int"),
    "arrays": (lambda: [np.zeros(3, np.float32)], TypeError, "ndarray"),
    "a dict": (lambda: {"params": make(3)}, TypeError, "str"),
    "a set in a group": (lambda: [{"params": set(make(3, 4))}], TypeError, "set"),
    "a set": (lambda: set(make(3, 4)), TypeError, "set"),
    "not a leaf": (lambda: [make(3)[0] * 2], ValueError, "non-leaf"),
    "in two groups": (
        lambda: [{"params": p} for p in make(3) * 2], ValueError, "more than one parameter group",
    ),
    "uninitialised": (
        lambda: list(nn.LazyLinear(3).parameters()), ValueError, "uninitialized",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PARAMS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_params_that_cannot_be_sampled(case):
    build, error, *words = BAD_PARAMS[case]
    with refuses(error, *words):
        SGLD(build(), seed=0)


def test_duplicates_are_refused_or_at_least_not_sampled_twice():
    (param,) = make(3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*duplicate parameters")
        sampler = SGLD([param, param], seed=0)
    with refuses(ValueError, "params", "share memory", sampler=sampler, watch=[param]):
        sampler.step()
    with pytest.raises(UserWarning, match="duplicate parameters"):
        SGLD([param, param], seed=0)


OUT_OF_RANGE = [-1.0, -1e-300, math.nan, math.inf, -math.inf, torch.tensor(-1.0), np.float32("nan")]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=repr)
def test_settings_out_of_range(name, value):
    if name == "bounding_box_size" and float(value) == math.inf:
        SGLD(make(3), bounding_box_size=math.inf)  # no box
        return
    words = [f"{name} must be", f"got {float(value)}"]
    with refuses(ValueError, *words):
        SGLD(make(3), **{name: value})
    with refuses(ValueError, *words):
        SGLD([{"params": make(3)}, {"params": make(4), name: value}])


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_wrong_type(name):
    for value in ("x", 1j, [0.1], torch.tensor([0.1, 0.2]), object(), None):
        if value is None and name == "bounding_box_size":
            continue
        with refuses((TypeError, ValueError), name):
            SGLD(make(3), **{name: value})


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_too_large_for_a_float(name):
    (param,) = make(3)
    sampler = SGLD([param], seed=0)
    (other,) = make(4)
    errors = (TypeError, ValueError, OverflowError)
    with refuses(errors, name, sampler=sampler, watch=[param, other]):
        sampler.add_param_group({"params": [other], name: 10**400})
    assert len(sampler.param_groups) == 1, "the refused group stayed"
    assert other not in sampler.state


def test_a_box_of_no_size():
    with refuses(ValueError, "bounding_box_size", "got 0.0"):
        SGLD(make(3), bounding_box_size=0)


@pytest.mark.parametrize(
    "seed", [1.0, "1", True, False, [1], torch.tensor(1.5), 1j, b"1"], ids=repr
)
def test_seeds_of_the_wrong_type(seed):
    with refuses(TypeError, "seed must be an int", "got"):
        SGLD(make(3), seed=seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 2**200, np.int64(-1)], ids=repr)
def test_seeds_out_of_range(seed):
    with refuses(ValueError, "seed must be in [0, 2**64)", f"got {int(seed)}"):
        SGLD(make(3), seed=seed)


def test_seeds_that_differ_between_groups():
    with refuses(ValueError, "seed", "1", "got 2"):
        SGLD([{"params": make(3), "seed": 1}, {"params": make(3), "seed": 2}])
    with refuses(ValueError, "seed", "1", "got 2"):
        SGLD([{"params": make(3)}, {"params": make(3), "seed": 2}], seed=1)
    sampler = SGLD(make(3), seed=1)
    with refuses(ValueError, "seed", "1", "got 2", sampler=sampler):
        sampler.add_param_group({"params": make(4), "seed": 2})
    assert len(sampler.param_groups) == 1


@pytest.mark.parametrize("name", ["lr", "foo"])
def test_settings_are_keywords(name):
    if name == "lr":
        assert SGLD(make(3), 0.5).param_groups[0]["lr"] == 0.5
        with pytest.raises(TypeError, match="positional"):
            SGLD(make(3), 0.5, 1.0)
    else:
        with pytest.raises(TypeError, match="foo"):
            SGLD(make(3), foo=1.0)


# ---------------------------------------------------------------- add_param_group


BAD_GROUPS = {
    "dtype": (lambda old: {"params": [torch.zeros(3).short()]}, TypeError, "params[2]", "int16"),
    "later in the group": (
        lambda old: {"params": [*make(3), torch.zeros(3, device="meta")]}, TypeError,
        "params[3]", "meta",
    ),
    "setting": (
        lambda old: {"params": make(3), "nbeta": -2}, ValueError, "nbeta must be", "got -2.0",
    ),
    "empty": (lambda old: {"params": []}, ValueError, "params", "empty"),
    "memory of another": (
        lambda old: {"params": [old[0].detach()[1:]]}, ValueError, "params", "share memory",
    ),
    "the same parameter": (
        lambda old: {"params": [old[0]]}, ValueError, "more than one parameter group",
    ),
    "expanded": (
        lambda old: {"params": [torch.zeros(1).expand(3)]}, ValueError, "params[2]", "(0,)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_GROUPS)
def test_a_group_that_is_refused_leaves_no_trace(case):
    build, error, *words = BAD_GROUPS[case]
    params, twins = make(5, 4), make(5, 4)
    sampler, twin = SGLD(params, localization=1.0, seed=0), SGLD(twins, localization=1.0, seed=0)
    sampler.step()
    twin.step()
    group = build(params)
    states = len(sampler.state)
    with refuses(error, *words, sampler=sampler, watch=params):
        sampler.add_param_group(group)
    assert len(sampler.param_groups) == 1
    assert len(sampler.state) == states
    sampler.step()
    twin.step()
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


# ---------------------------------------------------------------- a step


def set_grad(kind):
    def change(p, others):
        p.grad = {
            "sparse": lambda: p.grad.to_sparse(),
            "the parameter": lambda: p.data,
            "memory of another": lambda: (
                others[0].data.view(-1).view(p.dtype)[: p.numel()].view(p.shape)
            ),
        }[kind]()

    return change


def set_grad_data(make_data):
    def change(p, others):
        p.grad.data = make_data(p.grad)

    return change


def set_data(make_data):
    def change(p, others):
        p.data = make_data(p)

    return change


def resize_grad(p, others):
    p.grad.resize_(7)


def share(p, others):
    p.data = others[0].data.view(-1).view(p.dtype)[: p.numel()].view(p.shape)


def convert(dtype):
    def change(p, others):
        data, grad = p.data.to(dtype), p.grad.to(dtype)
        p.grad = None
        p.data = data
        p.grad = grad

    return change


def reshape(p, others):
    p.grad = None
    p.data = torch.zeros(2, 2, dtype=p.dtype)
    p.grad = torch.zeros(2, 2, dtype=p.dtype)


def swap_dtype(p, others):
    convert(F64 if p.dtype == F32 else F32)(p, others)


FAULTS = {
    "sparse gradient": (set_grad("sparse"), RuntimeError, "sparse_coo"),
    "gradient of another shape": (resize_grad, ValueError, "(3, 3)", "(7,)"),
    "gradient of fewer dimensions": (
        set_grad_data(lambda g: g.flatten()), ValueError, "(3, 3)", "(9,)",
    ),
    "half gradient": (set_grad_data(lambda g: g.half()), TypeError, "float16"),
    "integer gradient": (set_grad_data(lambda g: g.long()), TypeError, "int64"),
    "complex gradient": (set_grad_data(lambda g: g.to(torch.complex64)), TypeError, "complex64"),
    "the parameter as gradient": (set_grad("the parameter"), ValueError, "share memory"),
    "another parameter as gradient": (set_grad("memory of another"), ValueError, "share memory"),
    "expanded parameter": (
        set_data(lambda p: torch.zeros(1, 1, dtype=p.dtype).expand(3, 3)), ValueError, "(0, 0)",
    ),
    "overlapping parameter": (
        set_data(lambda p: overlapping(p.dtype)), ValueError, "(2, 1)",
    ),
    "parameters that share memory": (share, ValueError, "share memory"),
    "parameter made half": (convert(torch.half), (TypeError, ValueError), "float16"),
    "parameter made bfloat16": (convert(torch.bfloat16), (TypeError, ValueError), "bfloat16"),
    "parameter made complex": (convert(torch.complex64), (TypeError, ValueError), "complex64"),
    "parameter of the other precision": (swap_dtype, (TypeError, ValueError), "float"),
    "lazy negative parameter": (
        set_data(lambda p: torch._neg_view(torch.ones(3, 3, dtype=p.dtype))), TypeError, "neg",
    ),
    "parameter reshaped": (reshape, ValueError, "(3, 3)", "(2, 2)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", [F32, F64], ids=["same dtype", "other dtype"])
@pytest.mark.parametrize("warm", [True, False], ids=["after a step", "at the first step"])
@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_a_step_that_is_refused_changes_nothing(fault, dtype, warm):
    """The faulty parameter stands behind healthy ones, of its own and of the other dtype."""
    change, error, *words = FAULTS[fault]
    first = make((40, 2))
    (faulty,) = make((3, 3), dtype=dtype)
    last = make(5)
    sampler = SGLD(
        [{"params": [*first, faulty]}, {"params": last, "lr": 0.1}], localization=1.0, seed=3
    )
    if warm:
        sampler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        change(faulty, first)
    if not warm and fault == "parameter of the other precision":
        words = ["w0[1] must be"]  # its anchor tells
    with refuses(error, *words, sampler=sampler, watch=[*first, *last]):
        sampler.step()


@pytest.mark.parametrize("fault", ["sparse gradient", "gradient of another shape"])
def test_a_refused_step_names_the_parameter_and_draws_no_seed(fault):
    change, error, *_ = FAULTS[fault]
    (first, faulty, last) = make((40, 2), (3, 3), 5)
    sampler = SGLD([{"params": [first]}, {"params": [faulty, last]}])
    change(faulty, [first])
    with refuses(error, "[1]", sampler=sampler, watch=[first, last]):
        sampler.step()


@pytest.mark.parametrize("trial", range(5))
def test_a_parameter_that_becomes_an_expanded_view_where_it_was_freed(trial):
    """The memory of a freed parameter is soon given out again, to a copy of what follows it."""
    n = 3 + 40 * trial
    params = make(n, n)
    sampler = SGLD(params, seed=0)
    sampler.step()
    params[1].data = torch.zeros(1).expand(n)
    with refuses(ValueError, "params[1]", "(0,)", sampler=sampler, watch=params[:1]):
        sampler.step()


def test_the_name_is_that_of_the_sampler_even_where_dtypes_mix_or_gradients_miss():
    """The index counts all parameters, not those of one dtype or with a gradient."""
    a, b, c = make((3, 3), (3, 3), (3, 3), dtype=F64)
    (single,) = make((3, 3))
    sampler = SGLD([single, a, b, c], seed=0)
    a.grad = None
    c.grad = c.grad.to_sparse()
    with refuses(RuntimeError, "[3]", sampler=sampler, watch=[single, a, b, c]):
        sampler.step()


def test_after_a_refused_step_the_next_goes_on_as_if_nothing_had_been():
    params, twins = make((40, 2), (3, 3), 5), make((40, 2), (3, 3), 5)
    sampler, twin = SGLD(params, localization=1.0, seed=3), SGLD(twins, localization=1.0, seed=3)
    sampler.step()
    twin.step()
    grad = params[1].grad
    params[1].grad = grad.to_sparse()
    with pytest.raises(RuntimeError):
        sampler.step()
    params[1].grad = grad
    sampler.step()
    twin.step()
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf, "x", "inf"], ids=repr)
@pytest.mark.parametrize("group", [0, 1])
def test_settings_that_go_bad_later(name, value, group):
    if name == "bounding_box_size" and value == "inf":
        return
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], bounding_box_size=1.0, seed=0)
    sampler.step()
    good = sampler.param_groups[group][name]
    sampler.param_groups[group][name] = math.inf if value == "inf" else value
    with refuses((ValueError, TypeError), name, sampler=sampler, watch=params):
        sampler.step()
    with refuses((ValueError, TypeError), name, sampler=sampler, watch=params):
        sampler.step()  # and it stays refused
    sampler.param_groups[group][name] = good
    sampler.step()


def test_an_lr_tensor_that_turns_nan():
    (param,) = make(30)
    lr = torch.tensor(0.1)
    sampler = SGLD([param], lr=lr, seed=0)
    sampler.step()
    lr.fill_(math.nan)
    with refuses(ValueError, "lr", "nan", sampler=sampler, watch=[param]):
        sampler.step()


@pytest.mark.parametrize("seed", [1.5, -1, 2**64, "1", True, None], ids=repr)
def test_a_seed_that_goes_bad_later(seed):
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], seed=7)
    sampler.step()
    for group in sampler.param_groups:
        group["seed"] = seed
    if seed is None:
        sampler.step()  # a new one is drawn
        assert isinstance(sampler.param_groups[0]["seed"], int)
        return
    with refuses((TypeError, ValueError), "seed", sampler=sampler, watch=params):
        sampler.step()


def test_a_seed_that_is_changed_in_one_group_alone():
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], seed=7)
    sampler.step()
    sampler.param_groups[1]["seed"] = 8
    with refuses(ValueError, "seed", "7", "8", sampler=sampler, watch=params):
        sampler.step()


@pytest.mark.parametrize("step", [-1, 1.5, "1"], ids=repr)
def test_a_step_counter_that_goes_bad(step):
    (param,) = make(30)
    sampler = SGLD([param], seed=7)
    sampler.param_groups[0]["step"] = step
    with refuses((TypeError, ValueError), "step", sampler=sampler, watch=[param]):
        sampler.step()


@pytest.mark.parametrize("name", ["localization", "bounding_box_size"])
@pytest.mark.parametrize("group", [0, 1])
def test_an_anchor_that_was_never_kept(name, group):
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], seed=0)
    sampler.step()
    sampler.param_groups[group][name] = 1.0
    with refuses(ValueError, name, "anchor", sampler=sampler, watch=params):
        sampler.step()


def test_an_anchor_that_is_missing_from_a_loaded_state():
    """Not only of the first parameter of a group."""
    params = make(30, 4)
    sampler = SGLD(params, localization=1.0, seed=0)
    state = copy.deepcopy(sampler.state_dict())
    del state["state"][1]
    with refuses(ValueError, "anchor", sampler=sampler, watch=params):
        sampler.load_state_dict(state)
        sampler.step()


def test_an_anchor_of_another_shape_in_a_loaded_state():
    (param,), (other,) = make(30), make(4)
    sampler = SGLD([param], localization=1.0, seed=0)
    with refuses(ValueError, "(30,)", "(4,)", sampler=sampler, watch=[param]):
        sampler.load_state_dict(SGLD([other], localization=1.0, seed=0).state_dict())
        sampler.step()


def test_a_state_of_another_optimizer():
    (param,) = make(30)
    sampler = SGLD([param], seed=0)
    with refuses(ValueError, "noise_format", sampler=sampler, watch=[param]):
        sampler.load_state_dict(torch.optim.SGD([param], lr=0.1).state_dict())


@pytest.mark.parametrize("generator", [3, "cpu", np.random.default_rng(0)], ids=["3", "cpu", "np"])
def test_a_noise_generator_of_the_wrong_type(generator):
    (param,) = make(30)
    sampler = SGLD([param], seed=0)
    with refuses(TypeError, "noise_generator", sampler=sampler, watch=[param]):
        sampler.step(noise_generator=generator)


def test_memory_that_was_taken_away(run_python):
    """Storage resized under a tensor, as sharding does: an exception, no access. Each in a fork."""
    script = """
import os, resource, torch
from fastllc import AdamSGLD
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
torch.set_num_threads(1)

def case(of, size, warm):  # size None: as it is
    p = torch.zeros(100_000).bfloat16()
    p.grad = torch.zeros_like(p)
    s = AdamSGLD([p], localization=1.0, seed=0, mask=torch.ones(100_000, dtype=torch.bool))
    if warm:
        s.step()
    if of in ("momentum", "square_avg", "residual") and not warm:
        return 0
    held = {"param": p, "grad": p.grad, "mask": s.param_groups[0]["mask"][0], **s.state[p]}
    tensor = held[of]
    if size is not None:
        tensor.untyped_storage().resize_(size)
    try:
        s.step()
    except (ValueError, RuntimeError) as error:
        return 0 if of in str(error) else 1
    return 2

assert case("param", None, True) == 2  # and what torch loads at a first step is loaded here
for of in ("param", "grad", "w0", "mask", "momentum", "square_avg", "residual"):
    for size in (0, 40):
        for warm in (False, True):
            child = os.fork()
            if not child:
                os._exit(case(of, size, warm))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                print(of, size, warm, {1: "no name", 2: "accepted"}.get(status, status))
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


# ---------------------------------------------------------------- divergence


def diverge(value, at, where, n=600):
    """Steps a sampler whose gradient turns bad at one step; returns it and all warnings."""
    params = make(50, n, 4)
    sampler = SGLD([{"params": params[:2]}, {"params": params[2:]}], seed=0)
    seen = []
    for step in range(6):
        if step == at:
            params[1].grad[where] = value
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler.step()
        seen += [(step, w) for w in caught]
        assert sampler.nonfinite_step == (None if step < at else at)
    return sampler, seen


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("where", [0, 255, 599])
def test_divergence_is_flagged_once_at_that_step(value, at, where):
    if value == 3e38:  # overflows by the temperature
        (param,) = make(600)
        sampler = SGLD([param], nbeta=1e4, seed=0)
        param.grad[where] = value
        with pytest.warns(DivergenceWarning, match=r"step 0 .* params\[0\] \(1 of 600\)"):
            sampler.step()
        return
    sampler, seen = diverge(value, at, where)
    assert [step for step, _ in seen] == [at]
    ((_, warning),) = seen
    assert warning.category is DivergenceWarning
    assert f"step {at} " in str(warning.message)
    assert "params[1] (1 of 600)" in str(warning.message)
    assert sampler.nonfinite_step == at


@pytest.mark.parametrize("hooks", [False, True])
def test_divergence_is_told_of_the_line_that_stepped(hooks):
    (param,) = make(5)
    param.grad[0] = math.nan
    sampler = SGLD([param], seed=0)
    if hooks:
        sampler.register_step_pre_hook(lambda *_: None)
    with pytest.warns(DivergenceWarning) as caught:
        sampler.step()
    assert caught[0].filename == __file__


def test_divergence_stays_in_the_state():
    sampler, _ = diverge(math.nan, 2, 7)
    other = SGLD([{"params": make(50, 600)}, {"params": make(4)}], seed=0)
    other.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert other.nonfinite_step == 2
    assert copy.deepcopy(sampler).nonfinite_step == 2


def test_weights_that_are_not_finite_from_the_start():
    (param,) = make(30)
    param.data[3] = math.nan
    sampler = SGLD([param], seed=0)
    assert sampler.nonfinite_step is None
    with pytest.warns(DivergenceWarning, match=r"step 0 .* \(1 of 30\)"):
        sampler.step()


def test_divergence_names_every_parameter_of_every_dtype():
    params = [*make(5), *make(6, dtype=F64), *make(7)]
    sampler = SGLD(params, seed=0)
    for p in params[:2]:
        p.grad[1] = math.inf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampler.step()
    assert len(caught) == 1
    named = re.findall(r"params\[(\d)\]", str(caught[0].message))
    assert named == ["0", "1"]


def test_divergence_as_an_error_still_completes_the_step():
    """With warnings as errors: the weights have moved, so the step must have been counted."""
    a, b = [*make(5), *make(6, dtype=F64)], [*make(5), *make(6, dtype=F64)]
    strict, lax = SGLD(a, seed=0), SGLD(b, seed=0)
    for params in (a, b):
        params[0].grad[1] = math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DivergenceWarning):
            strict.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lax.step()
    assert strict.param_groups[0]["step"] == 1
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_large_weights_are_no_divergence():
    (param,) = make(600)
    param.data.fill_(3e38)  # sums of these overflow
    sampler = SGLD([param], lr=1e-8, seed=0)
    for _ in range(3):
        sampler.step()
    assert sampler.nonfinite_step is None


def test_non_finite_weights_that_get_no_gradient_are_not_looked_at():
    a, b = make(5, 6)
    b.data[0] = math.nan
    b.grad = None
    sampler = SGLD([a, b], seed=0)
    sampler.step()
    assert sampler.nonfinite_step is None


# ---------------------------------------------------------------- standard_normal


BAD_NORMALS = {
    "negative size": ({"size": -1}, ValueError, "size", "-1"),
    "negative in a shape": ({"size": (2, -1)}, ValueError, "size", "-1"),
    "size of float": ({"size": 2.5}, TypeError, "size"),
    "shape of float": ({"size": (2.5,)}, TypeError, "size"),
    "size of str": ({"size": "3"}, TypeError, "size"),
    "no size": ({"size": None}, TypeError, "size"),
    "negative seed": ({"seed": -1}, ValueError, "seed", "got -1"),
    "large seed": ({"seed": 2**64}, ValueError, "seed", f"got {2**64}"),
    "float seed": ({"seed": 1.0}, TypeError, "seed", "got 1.0"),
    "bool seed": ({"seed": True}, TypeError, "seed", "got True"),
    "no seed": ({"seed": None}, TypeError, "seed", "got None"),
    "tensor seed": ({"seed": torch.tensor(1.0)}, TypeError, "seed"),
    "large step": ({"step": 2**32}, ValueError, "step", f"got {2**32}"),
    "negative step": ({"step": -1}, ValueError, "step", "got -1"),
    "float step": ({"step": 0.5}, TypeError, "step", "got 0.5"),
    "large param": ({"param": 2**24}, ValueError, "param", f"got {2**24}"),
    "negative param": ({"param": -1}, ValueError, "param", "got -1"),
    "negative first": ({"first": -1}, ValueError, "first", "got -1"),
    "large first": ({"first": 2**62}, ValueError, "first", f"got {2**62}"),
    "half": ({"dtype": torch.half}, TypeError, "dtype", "float16"),
    "complex": ({"dtype": torch.complex64}, TypeError, "dtype", "complex64"),
    "python dtype": ({"dtype": float}, TypeError, "dtype", "float"),
    "unknown device": ({"device": "nonsense"}, RuntimeError, "nonsense"),
}


@pytest.mark.parametrize("case", BAD_NORMALS)
def test_standard_normal_refuses(case):
    change, error, *words = BAD_NORMALS[case]
    with refuses(error, *words):
        standard_normal(**{"size": 3, "seed": 0, **change})


def test_integers_of_numpy_and_torch_are_integers():
    plain = standard_normal((5,), seed=3, step=2, param=1, first=4)
    odd = standard_normal(
        np.int64(5), seed=np.uint8(3), step=torch.tensor(2), param=np.int16(1), first=np.uint64(4)
    )
    assert torch.equal(plain, odd)


# ---------------------------------------------------------------- localization_penalty


def pair(shape=3, dtype=F32):
    return torch.zeros(shape, dtype=dtype)


BAD_PENALTIES = {
    "no params": ([], [], 1.0, ValueError, "params", "empty"),
    "fewer anchors": ([pair(), pair()], [pair()], 1.0, ValueError, "anchors", "2", "got 1"),
    "more anchors": ([pair()], [pair(), pair()], 1.0, ValueError, "anchors", "1", "got 2"),
    "shapes": ([pair(3)], [pair(4)], 1.0, ValueError, "anchors[0]", "(3,)", "(4,)"),
    "shapes that broadcast": (
        [pair((3, 1))], [pair((1, 3))], 1.0, ValueError, "anchors[0]", "(3, 1)", "(1, 3)",
    ),
    "0-d for 1": ([pair(1)], [pair(())], 1.0, ValueError, "anchors[0]", "(1,)", "()"),
    "dtypes of a pair": (
        [pair()], [pair(dtype=F64)], 1.0, TypeError, "anchors[0]", "float32", "float64",
    ),
    "dtypes of params": (
        [pair(), pair(dtype=F64)], [pair(), pair(dtype=F64)], 1.0, (TypeError, ValueError),
        "params[1]", "float32", "float64",
    ),
    "half": ([pair().half()], [pair().half()], 1.0, TypeError, "params[0]", "float16"),
    "integers": ([pair().int()], [pair().int()], 1.0, TypeError, "params[0]", "int32"),
    "complex": (
        [pair(dtype=torch.complex64)], [pair(dtype=torch.complex64)], 1.0, TypeError, "params[0]",
        "complex64",
    ),
    "meta": (
        [pair().to("meta")], [pair().to("meta")], 1.0, TypeError, "params[0]", "meta",
    ),
    "devices": ([pair()], [pair().to("meta")], 1.0, ValueError, "anchors[0]", "cpu", "meta"),
    "sparse": (
        [torch.eye(2).to_sparse()], [torch.eye(2)], 1.0, TypeError, "params[0]", "sparse_coo",
    ),
    "sparse anchor": (
        [torch.eye(2)], [torch.eye(2).to_sparse()], 1.0, (TypeError, RuntimeError), "anchors[0]",
        "sparse_coo",
    ),
    "expanded": (
        [pair(1).expand(3)], [pair(3)], 1.0, ValueError, "params[0]", "(0,)",
    ),
    "negative": ([pair()], [pair()], -1.0, ValueError, "strength", "got -1.0"),
    "nan": ([pair()], [pair()], math.nan, ValueError, "strength", "got nan"),
    "infinite": ([pair()], [pair()], math.inf, ValueError, "strength", "got inf"),
    "a word": ([pair()], [pair()], "much", TypeError, "strength", "much"),
    "no strength": ([pair()], [pair()], None, TypeError, "strength", "None"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PENALTIES)
@pytest.mark.parametrize("function", [localization_penalty, localization_penalty_and_grad])
def test_localization_penalty_refuses(case, function):
    params, anchors, strength, error, *words = BAD_PENALTIES[case]
    with refuses(error, *words):
        function(params, anchors, strength)


def test_the_penalty_under_a_default_device():
    """Weights on the CPU stay CPU work, whatever torch.set_default_device says."""
    w, w0 = torch.ones(3, requires_grad=True), torch.zeros(3)
    with torch.device("meta"):
        value = localization_penalty([w], [w0], 2.0)
        value.backward()
        both, grads = localization_penalty_and_grad([w], [w0], 2.0)
    assert value.device == both.device == w.device
    assert value.item() == both.item() == 3.0
    assert torch.equal(w.grad, torch.full((3,), 2.0))
    assert torch.equal(grads[0], w.grad)


def test_the_penalty_notices_weights_that_were_changed_since():
    w = torch.ones(3, requires_grad=True)
    value = localization_penalty([w], [torch.zeros(3)], 2.0)
    w.grad = torch.ones(3)
    SGLD([w], seed=0).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_every_setting_of_the_sampler_is_covered_here():
    group = SGLD(make(3)).param_groups[0]
    others = {"params", "save_metrics", "seed", "step", "first_param", "noise_format"}
    elsewhere = {"mask", "rounding", "sketch_dim", "sketch_seed"}  # test_bad_settings, test_sketch
    assert set(SETTINGS) == set(group) - others - elsewhere
    assert issubclass(SGLD, Sampler)


# ---------------------------------------------------------------- what is remembered between steps


def twice_resized(p, sampler, of):
    """A storage made smaller twice: the allocator may give it its old address again."""
    tensor = {"param": p, "grad": p.grad, "anchor": sampler.state[p]["w0"]}[of]
    for size in (40, 36):
        tensor.untyped_storage().resize_(size)


@pytest.mark.parametrize("of", ["param", "grad", "anchor"])
def test_a_storage_that_shrinks_between_steps(of):
    first, faulty = make((40, 2), (50, 60))
    sampler = SGLD([first, faulty], localization=1.0, seed=0)
    sampler.step()
    sampler.step()
    twice_resized(faulty, sampler, of)
    with refuses(ValueError, "[1]", "36 bytes", sampler=sampler, watch=[first]):
        sampler.step()


def test_a_parameter_that_is_turned_round_in_place_and_back():
    """The copy that stood for it is gone when it is contiguous again."""
    (param,) = make((30, 30))
    sampler = SGLD([param], seed=0)
    for step in range(4):
        twin = param.detach().clone()
        twin.grad = param.grad.clone()
        other = SGLD([twin], seed=0)
        other.param_groups[0]["step"] = step
        sampler.step()
        other.step()
        assert torch.equal(param, twin)
        with torch.no_grad():
            param.t_()
            param.grad.t_()


def test_a_gradient_that_moves_into_a_parameter():
    first, second = make((40, 2), (40, 2))
    sampler = SGLD([first, second], seed=0)
    for _ in range(3):
        second.grad = torch.randn(40, 2)
        sampler.step()
    second.grad = first.data
    with refuses(ValueError, "params[1].grad", "share memory", sampler=sampler, watch=[second]):
        sampler.step()


def test_a_gradient_may_lie_where_a_parameter_was():
    first, second = make((40, 2), (40, 2))
    sampler = SGLD([first, second], seed=0)
    sampler.step()
    old = second.data
    second.data = old.clone()
    first.grad = old
    before = first.detach().clone()
    sampler.step()
    assert not torch.equal(first, before)
