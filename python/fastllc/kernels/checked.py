"""Parameter tensors that native code may touch: checked, and their addresses in a table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from fastllc import _core
from fastllc.kernels.tables import (
    DTYPES,
    MAX_PARAMS,
    Member,
    real_dtype,
)
from fastllc.memory import (
    Places,
    Spans,
    check_like,
    check_storage,
    check_tensor,
    extent,
    short,
)

__all__ = ["Checked"]

STATE = ("momentum", "square_avg", "residual")
SHARED = ("w0", "mask")


class Checked:
    """A fixed list of parameter tensors of one or many chains, and the table of their addresses.

    Parameters
    ----------
    members : sequence of Member
        The tensors, on one device, none of which shares memory with another.
    chains : int, optional
        Number of stacked chains; without it the tensors are those of one chain.
    anchors : sequence of int, optional
        For each chain the row of `w0` that is its anchor, all `w0` being stacks of the same length;
        without it all chains share one.

    Raises
    ------
    TypeError, ValueError
        If a tensor cannot be sampled, shares memory with another, or does not fit the others.
    """

    def __init__(
        self,
        members: Sequence[Member],
        chains: int | None = None,
        anchors: Sequence[int] | None = None,
    ) -> None:
        self._members = list(members)
        ids = [m.id for m in members]
        for member in members:
            for name in ("group", "first", "born"):
                if getattr(member, name) < 0:
                    raise ValueError(f"{name} must be >= 0, got {getattr(member, name)}")
            if not 0 <= member.id < MAX_PARAMS:
                raise ValueError(f"id must be in [0, 2**24), got {member.id}")
            check_tensor(f"params[{member.id}]", member.w)
            if chains is not None and (member.w.ndim == 0 or member.w.shape[0] != chains):
                raise ValueError(
                    f"params[{member.id}] must have shape [{chains}, ...], got "
                    f"{tuple(member.w.shape)}"
                )
        if len({(m.id, m.first) for m in members}) < len(members):
            raise ValueError(f"ids must differ, or tensors would share their noise, got {ids}")
        params = [m.w for m in members]
        self._params = params
        self._expected = [(p, p.shape, p.dtype, p.numel() * p.element_size()) for p in params]
        self._device = params[0].device

        table = np.zeros(len(members), _core.SEGMENT)
        table["dtype"] = [DTYPES[p.dtype] for p in params]
        count = 1 if chains is None else chains
        table["numel"] = [p.numel() // count if count else 0 for p in params]
        table["w_stride"] = table["numel"] if chains is not None else 0
        table["param"] = ids
        for name in ("group", "first", "born"):
            table[name] = [getattr(m, name) for m in members]
        self._table = table
        self._count = count
        self._groups = 1 + max(m.group for m in members)
        self._anchors = None
        if anchors is not None:
            if len(anchors) != chains or min(anchors) < 0:
                raise ValueError(
                    f"anchors must be {chains} rows >= 0, one for each chain, got {list(anchors)}"
                )
            self._anchors = 1 + max(anchors)
            table["w0_stride"] = table["numel"]
        self._bound: list[Tensor] = []
        self._addresses: list[int] = []
        self._place([])

    def bind(self, grads: Sequence[Tensor]) -> None:
        """Check the gradients of the next step, and whatever has moved in memory since the last.

        Parameters
        ----------
        grads : sequence of Tensor
            Gradients of the mean loss, of the parameters' shapes and dtypes.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If a gradient does not fit its parameter or shares memory with one, or a parameter is
            no longer what it was.
        """
        self._bound = []
        bound: list[Tensor] = []
        addresses: list[int] = []
        starts, stops = self._spans.starts, self._spans.stops
        device, strided = self._device, torch.strided
        settled = not self._staged
        # Torch's getters, 40 to 100 ns each, take most of the time of this loop, written in C++ too
        # (6 tensors: 6.2 us there, 7.8 us here): nothing is asked twice, and what looks wrong is
        # only noted, for `_place` to look again with care. len(storage) is a faster nbytes().
        for (param, shape, dtype, size), grad in zip(self._expected, grads, strict=True):
            if (
                param.shape != shape
                or param.dtype is not dtype
                or grad.shape != shape
                or grad.dtype is not dtype
                or grad.layout is not strided
                or grad.device != device
            ):
                self._refuse(grads)
            if not grad.is_contiguous() or grad.is_neg():
                check_storage(f"params[{self._members[len(bound)].id}].grad", grad)
                grad = grad.contiguous().resolve_neg()
            start = grad.data_ptr()
            stop = start + size
            storage = grad.untyped_storage()
            if (
                stop > storage.data_ptr() + len(storage)
                or starts[bisect_right(stops, start)] < stop
                or not param.is_contiguous()
            ):
                settled = False
            bound.append(grad)
            addresses.append(start)
        if not settled or not self._places.kept():
            self._place(bound)
        # Alive until they have been read: copies, and gradients that the caller may drop.
        self._bound = bound
        if addresses != self._addresses:
            self._table["grad"] = self._addresses = addresses

    def _refuse(self, grads: Sequence[Tensor]) -> None:
        """Raise for the first tensor that is not what it must be."""
        for member, (param, shape, dtype, _), grad in zip(
            self._members, self._expected, grads, strict=True
        ):
            i = member.id
            if param.shape != shape or param.dtype is not dtype:
                raise ValueError(
                    f"params[{i}] must stay as it was, {short(dtype)} of shape {tuple(shape)}, "
                    f"got {short(param.dtype)} of shape {tuple(param.shape)}"
                )
            check_like(f"params[{i}].grad", grad, param)

    def _close(self) -> None:
        """Leave everything as after a step in place: what was copied, gradients, versions."""
        if self._staged:
            with torch.no_grad():
                for param, copy in self._staged:
                    param.copy_(copy)
        self._bound = []
        torch.autograd.graph.increment_version(self._params)

    def _place(self, grads: Sequence[Tensor]) -> None:
        """Check all tensors where they are now, then take their addresses."""
        for member in self._members:
            name, param = f"params[{member.id}]", member.w
            check_tensor(name, param)
            check_storage(name, param)
            if param.device != self._device:
                raise ValueError(
                    f"{name} must be on {self._device} like the others, got {param.device}"
                )
        stacked = bool(self._table["w_stride"].any())
        for member in self._members:
            for kind, dtype in _dtypes(member.w.dtype).items():
                tensor = getattr(member, kind)
                if tensor is None:
                    continue
                name = f"{kind}[{member.id}]"
                like = member.w[0] if stacked and kind in SHARED else member.w
                if kind == "w0" and self._anchors is not None:
                    like = like.expand(self._anchors, *like.shape)
                check_like(name, tensor, like, dtype)
                if not tensor.is_contiguous() or tensor.is_neg():
                    raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()}")
                check_storage(name, tensor)
        states = [t for m in self._members for t in _tensors(m, STATE)]
        spans = Spans([*self._params, *states])
        for member, grad in zip(self._members, grads, strict=False):
            _check_apart(f"params[{member.id}].grad", grad, spans)
        for member in self._members:
            for kind in SHARED:
                for tensor in _tensors(member, (kind,)):
                    _check_apart(f"{kind}[{member.id}]", tensor, spans)

        copies = [p if p.is_contiguous() else p.detach().contiguous() for p in self._params]
        self._staged = [
            (p, copy) for p, copy in zip(self._params, copies, strict=True) if copy is not p
        ]
        self._table["w"] = _addresses(copies)
        for kind in (*STATE, *SHARED):
            self._table[kind] = _addresses(getattr(m, kind) for m in self._members)
        self._spans = spans
        shared = [t for m in self._members for t in _tensors(m, SHARED)]
        self._places = Places([*self._params, *states, *shared])


def _tensors(member: Member, kinds: Iterable[str]) -> list[Tensor]:
    return [tensor for kind in kinds if (tensor := getattr(member, kind)) is not None]


def _dtypes(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return what each tensor beside a weight of this dtype must be."""
    return {
        "w0": dtype,
        "mask": torch.bool,
        "momentum": real_dtype(dtype),
        "square_avg": real_dtype(dtype),
        "residual": torch.int16 if dtype == torch.bfloat16 else torch.float32,
    }


def _addresses(tensors: Iterable[Tensor | None]) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _check_apart(name: str, tensor: Tensor, spans: Spans) -> None:
    """Raise if a tensor lacks memory or shares it with a parameter."""
    check_storage(name, tensor)
    if tensor.numel():
        spans.check_outside(name, *extent(tensor))
