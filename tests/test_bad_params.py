"""What is refused of parameters, when a sampler is made or gets another group."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fastllc import SGLD
from helpers import make
from refusals import F64, overlapping, refuses


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
