"""The CUDA kernels on the host: a stack of chains, stepped by the emulation as _cuda would."""

import numpy as np
import pytest
import torch

from fastllc import _core
from fastllc.kernels.tables import DTYPES

TENSORS = ("w", "w0", "mask", "momentum", "square_avg", "residual")


def table_of(members, grads, chains=1, anchored=False):
    """The SEGMENT table of members whose tensors are [chains, *shape]."""
    table = np.zeros(len(members), _core.SEGMENT)
    for row, m, grad in zip(table, members, grads, strict=True):
        for name in TENSORS:
            tensor = getattr(m, name)
            row[name] = 0 if tensor is None else tensor.data_ptr()
        row["grad"] = grad.data_ptr()
        row["numel"] = row["w_stride"] = m.w.numel() // chains
        row["w0_stride"] = row["numel"] if anchored else 0
        row["param"], row["dtype"] = m.id, DTYPES[m.w.dtype]
        for name in ("group", "first", "born"):
            row[name] = getattr(m, name)
    return table


def native_kernels():
    """The module, which wheels for users are without."""
    return pytest.importorskip("fastllc._emulated", reason="built with FASTLLC_EMULATED=ON")


class Emulation:
    """One step after another in the same memory; what is summed is kept in its arrays."""

    def __init__(self, rule, table, settings, keys, steps, thermostats=0.0, active=1, anchors=0):
        self.rule, self.table = rule, table
        self.settings = np.array([[tuple(s) for s in row] for row in settings], _core.SETTING)
        self.chains = np.zeros(len(keys), _core.CHAIN)
        self.chains["key"], self.chains["step"], self.chains["active"] = keys, steps, active
        self.chains["thermostat"], self.chains["anchor"] = thermostats, anchors
        shape = (len(keys), len(table))
        self.nonfinite = np.full(shape, -7)
        self.moments = np.full((*shape, len(_core.MOMENTS)), np.nan)
        self.moments[:, table["numel"] == 0] = 0  # never written
        self.native = native_kernels().Step(int(rule), table, len(keys), len(self.settings))
        self.workspace = np.zeros(0, np.uint8)
        self.sketches = np.zeros(0)

    def step(self, *, moments=False, sketch=None, order=0):
        dim, seed = sketch or (0, 0)
        size = self.native.workspace(moments, dim)
        if size > self.workspace.size:
            self.workspace = np.zeros(size, np.uint8)
        shape = (len(self.chains), len(_core.COMPONENTS), dim)
        if self.sketches.shape != shape:
            self.sketches = np.full(shape, np.nan)
        self.native.run(
            order,
            self.chains.ctypes.data,
            self.settings.ctypes.data,
            self.nonfinite.ctypes.data,
            self.moments.ctypes.data if moments else 0,
            self.sketches.ctypes.data if dim else 0,
            dim,
            seed,
            self.workspace.ctypes.data,
        )


def copy_of(members):
    """The same members in memory of their own."""
    return [
        m._replace(**{n: getattr(m, n).clone() for n in TENSORS if getattr(m, n) is not None})
        for m in members
    ]


def same_state(members, others):
    """Weights in every bit, state wherever a mask lets it be anyone's."""
    for m, other in zip(members, others, strict=True):
        for name in ("w", "momentum", "square_avg", "residual"):
            ours, theirs = getattr(m, name), getattr(other, name)
            if ours is None:
                assert theirs is None
                continue
            if name != "w" and m.mask is not None:
                on = m.mask.expand(ours.shape)
                ours, theirs = ours[on], theirs[on]
            ours, theirs = (x.contiguous().flatten().view(torch.uint8) for x in (ours, theirs))
            assert torch.equal(ours, theirs), (m.id, name)
