"""Normals and the localization penalty of the CUDA kernels, emulated: the bits of the CPU core."""

import numpy as np
import pytest
import torch

from emulated import native_kernels
from fastllc import _core
from fastllc._core import DType

_emulated = native_kernels()

TYPES = {torch.float32: DType.float32, torch.float64: DType.float64}


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("numel", [0, 1, 5, 1024, 40_003])
@pytest.mark.parametrize("first", [0, 2, 2**34 - 7])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_normals_at_any_place(dtype, first, numel, shift):
    address = (numel, first, 2**63 + 5, 2**32 - 2, 2**24 - 1)
    ours, theirs = (torch.full((numel + 3,), 7.0, dtype=dtype) for _ in range(2))
    size = dtype.itemsize
    _core.standard_normal(TYPES[dtype], theirs.data_ptr() + shift * size, *address, 1)
    _emulated.standard_normal(int(TYPES[dtype]), ours.data_ptr() + shift * size, *address)
    assert torch.equal(ours, theirs)
    assert (ours[numel + shift :] == 7).all()


def pairs_of(ws, w0s, outs):
    table = np.zeros(len(ws), _core.PAIR)
    for row, w, w0, out in zip(table, ws, w0s, outs, strict=True):
        row["w"], row["w0"], row["numel"] = w.data_ptr(), w0.data_ptr(), w.numel()
        row["out"] = 0 if out is None else out.data_ptr()
    return table


def emulated_penalty(dtype, pairs, strength, workspace=None):
    kind = int(TYPES[dtype])
    size = _emulated.localization_workspace(kind, pairs)
    workspace = np.zeros(size, np.uint8) if workspace is None else workspace
    return _emulated.localization_penalty(kind, pairs, strength, workspace.ctypes.data)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_penalty_and_gradient(dtype, wanted):
    shapes = [(7,), (0,), (300, 211), (1,), (64 * 16384 + 70,)] + [(5 * i,) for i in range(30)]
    ws = [draw(*s, dtype=dtype, seed=i) for i, s in enumerate(shapes)]
    w0s = [draw(*s, dtype=dtype, seed=100 + i) for i, s in enumerate(shapes)]
    found = []
    for penalty in (
        lambda pairs: _core.localization_penalty(TYPES[dtype], pairs, 0.3, 1),
        lambda pairs: emulated_penalty(dtype, pairs, 0.3),
    ):
        outs = [torch.full_like(w, 7) if wanted else None for w in ws]
        value = penalty(pairs_of(ws, w0s, outs))
        found.append((value, outs))
    (theirs, gradients), (ours, others) = found
    assert ours == theirs
    if wanted:
        assert all(map(torch.equal, gradients, others))


def test_penalties_leave_the_workspace_as_it_was():
    w, w0 = draw(40_000, dtype=torch.float32), draw(40_000, dtype=torch.float32, seed=1)
    pairs = pairs_of([w], [w0], [None])
    workspace = np.zeros(_emulated.localization_workspace(0, pairs), np.uint8)
    values = {emulated_penalty(torch.float32, pairs, 2.0, workspace) for _ in range(3)}
    assert len(values) == 1


def test_unaligned_pairs():
    w, w0, out = (draw(5001, dtype=torch.float32, seed=i) for i in range(3))
    wanted = torch.empty(5000)
    value = _core.localization_penalty(
        DType.float32, pairs_of([w[1:]], [w0[:-1]], [wanted]), 1.5, 1
    )
    assert emulated_penalty(torch.float32, pairs_of([w[1:]], [w0[:-1]], [out[1:]]), 1.5) == value
    assert torch.equal(out[1:], wanted)


def test_refusals():
    w = torch.zeros(4)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got number 2"):
        _emulated.standard_normal(2, w.data_ptr(), 4, 0, 1, 0, 0)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got number 3"):
        _emulated.localization_workspace(3, pairs_of([w], [w], [None]))
    pairs = pairs_of([w], [w], [None])
    pairs["w0"] = 0
    with pytest.raises(ValueError, match=r"pairs\[0\].w0 must be an address, got 0"):
        _emulated.localization_workspace(0, pairs)
