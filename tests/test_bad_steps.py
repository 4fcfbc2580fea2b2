"""Steps that are refused for a parameter or a gradient: they change nothing, the next goes on."""

import warnings

import pytest
import torch

from fastllc import SGLD
from helpers import make
from refusals import F32, F64, overlapping, refuses


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
