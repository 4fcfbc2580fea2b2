"""The only door to native code: tensors are checked and packed into its tables."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core
from fastllc.memory import (
    Places,
    Spans,
    check_like,
    check_storage,
    check_tensor,
    extent,
    short,
)

__all__ = [
    "Segments",
    "Setting",
    "StepSums",
    "has_kernel",
    "localization_penalty",
]

DTYPES = {torch.float32: _core.DType.float32, torch.float64: _core.DType.float64}
MAX_PARAMS = 2**24
MAX_STEP = 2**32 - 1


class Setting(NamedTuple):
    """Settings of one (group, chain), named as in `fastllc.SGLD`; the layout of ``_core.SETTING``.

    Examples
    --------
    >>> Setting(0.1, 10.0, 1.0, 0.0, 1.0, float("inf")).nbeta
    10.0
    """

    lr: float
    nbeta: float
    localization: float
    weight_decay: float
    noise_level: float
    bounding_box_size: float


class StepSums(NamedTuple):
    """What a step summed, by (chain, tensor).

    Attributes
    ----------
    moments : array of float64, shape (chains, tensors, 9)
        Inner products of gradient, displacement w - w0, noise and weight before the step, in the
        order of ``_core.MOMENTS``; those of the last step that was asked for them.
    nonfinite : array of int64, shape (chains, tensors)
        Number of weights that are NaN or infinite after the step.
    """

    moments: NDArray[np.float64]
    nonfinite: NDArray[np.int64]


def has_kernel(tensor: Tensor) -> bool:
    """Whether native code handles this tensor's device.

    Examples
    --------
    >>> has_kernel(torch.zeros(1))
    True
    """
    return tensor.device.type == "cpu"


class Segments:
    """A fixed list of parameter tensors, packed for native steps of one or many chains.

    `bind` checks the gradients of a step and takes their addresses; `step` runs it.

    Parameters
    ----------
    params : sequence of Tensor
        The weights, float32 or float64, on the CPU; any strides without overlap. With `chains`,
        each is stacked: shape [chains, *shape].
    anchors : sequence of Tensor or None
        w0 for each parameter, contiguous, of the unstacked shape (shared by the chains); None
        where there is none.
    ids : sequence of int
        Parameter ids in the noise's address, in [0, 2**24). Errors name tensors by them.
    groups : sequence of int
        For each parameter the row of the settings that are passed to `step`.
    masks : sequence of Tensor or None, optional
        Boolean tensors of the unstacked shape; elements that are False keep their weight.
    firsts : sequence of int, optional
        For shards of larger tensors: the index of the first element in the whole one, row-major.
    chains : int, optional
        Number of stacked chains; without it the tensors are those of one chain.

    Raises
    ------
    TypeError, ValueError
        If a tensor cannot be sampled, shares memory with another, or does not fit the others.

    Examples
    --------
    >>> w, w0 = torch.zeros(3), torch.zeros(3)
    >>> segments = Segments([w], [w0], ids=[0], groups=[0])
    >>> segments.bind([torch.ones(3)])
    >>> setting = Setting(0.1, 1.0, 0.0, 0.0, 0.0, float("inf"))
    >>> segments.step([[setting]], keys=[0], steps=[0])
    True
    >>> w
    tensor([-0.0500, -0.0500, -0.0500])
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        anchors: Sequence[Tensor | None],
        ids: Sequence[int],
        groups: Sequence[int],
        masks: Sequence[Tensor | None] | None = None,
        firsts: Sequence[int] | None = None,
        chains: int | None = None,
    ) -> None:
        for name, values in (("groups", groups), ("firsts", firsts or [])):
            if min(values, default=0) < 0:
                raise ValueError(f"{name} must be >= 0, got {min(values)}")
        if not 0 <= min(ids) <= max(ids) < MAX_PARAMS:
            bad = max(ids) if max(ids) >= MAX_PARAMS else min(ids)
            raise ValueError(f"ids must be in [0, 2**24), got {bad}")
        if firsts is None and len(set(ids)) < len(ids):
            raise ValueError(f"ids must differ, or tensors would share their noise, got {ids}")
        self._params = list(params)
        self._anchors = list(anchors)
        self._masks: list[Tensor | None] = [None] * len(params) if masks is None else list(masks)
        self._ids = list(ids)
        for param, i in zip(params, ids, strict=True):
            check_tensor(f"params[{i}]", param)
            if chains is not None and (param.ndim == 0 or param.shape[0] != chains):
                raise ValueError(
                    f"params[{i}] must have shape [{chains}, ...], got {tuple(param.shape)}"
                )
        self._one = [p if chains is None else p[0] for p in params]
        self._expected = [(p, p.shape, p.dtype, p.numel() * p.element_size()) for p in params]
        self._device = params[0].device

        table = np.zeros(len(params), _core.SEGMENT)
        table["dtype"] = [DTYPES[p.dtype] for p in params]
        table["numel"] = [p.numel() for p in self._one]
        table["w_stride"] = table["grad_stride"] = table["numel"] if chains is not None else 0
        table["param"], table["group"] = ids, groups
        table["first"] = 0 if firsts is None else firsts
        self._table = table
        count = 1 if chains is None else chains
        self._chains = np.ones(count, _core.CHAIN)
        self._settings = np.zeros((max(groups) + 1, count), _core.SETTING)
        self._given: list[list[Setting]] = []
        self._sums = StepSums(
            np.zeros((count, len(params), len(_core.MOMENTS))),
            np.zeros((count, len(params)), np.int64),
        )
        self._native = _core.StepTables(table, self._chains, self._settings, *self._sums)

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
                check_storage(f"params[{self._ids[len(bound)]}].grad", grad)
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
        for i, (param, shape, dtype, _), grad in zip(self._ids, self._expected, grads, strict=True):
            if param.shape != shape or param.dtype is not dtype:
                raise ValueError(
                    f"params[{i}] must stay as it was, {short(dtype)} of shape {tuple(shape)}, "
                    f"got {short(param.dtype)} of shape {tuple(param.shape)}"
                )
            check_like(f"params[{i}].grad", grad, param)

    def step(
        self,
        settings: Sequence[Sequence[Setting]],
        keys: Sequence[int],
        steps: Sequence[int],
        *,
        active: Sequence[bool] | None = None,
        moments: bool = False,
    ) -> bool:
        """Advance every active chain by one fused SGLD step, in place, with the bound gradients.

        Parameters
        ----------
        settings : sequence of sequence of Setting
            ``settings[group][chain]``.
        keys, steps : sequence of int
            Noise key (64 bits) and step (32 bits) of each chain.
        active : sequence of bool, optional
            Chains that are False are neither read nor written.
        moments : bool
            Whether to sum the moments too.

        Returns
        -------
        bool
            Whether all weights of the active chains are finite; `sums` tells which are not.

        Raises
        ------
        RuntimeError
            Without a `bind` since the last step.
        """
        if not self._bound:
            raise RuntimeError("step needs gradients: call bind before each step")
        if settings != self._given:
            self._settings[...] = settings[: len(self._settings)]
            self._given = [list(row) for row in settings]
        self._chains["key"] = keys
        self._chains["step"] = steps
        if active is not None:
            self._chains["active"] = active
        nonfinite = self._native.run(moments, torch.get_num_threads())
        if self._staged:
            with torch.no_grad():
                for param, copy in self._staged:
                    param.copy_(copy)
        self._bound = []
        torch.autograd.graph.increment_version(self._params)
        return nonfinite == 0

    @property
    def sums(self) -> StepSums:
        """What the last step summed; the next one writes over it."""
        return self._sums

    def _place(self, grads: Sequence[Tensor]) -> None:
        """Check all tensors where they are now, then take their addresses."""
        for param, i in zip(self._params, self._ids, strict=True):
            check_tensor(f"params[{i}]", param)
            check_storage(f"params[{i}]", param)
            if param.device != self._device:
                raise ValueError(
                    f"params[{i}] must be on {self._device} like the others, got {param.device}"
                )
        spans = Spans(self._params)
        for kind, tensors in (("anchors", self._anchors), ("masks", self._masks)):
            for i, model, tensor in zip(self._ids, self._one, tensors, strict=True):
                if tensor is None:
                    continue
                if kind == "masks":
                    model = torch.empty(model.shape, dtype=torch.bool, device=model.device)
                check_like(f"{kind}[{i}]", tensor, model)
                if not tensor.is_contiguous() or tensor.is_neg():
                    raise ValueError(
                        f"{kind}[{i}] must be contiguous, got strides {tensor.stride()}"
                    )
                _check_apart(f"{kind}[{i}]", tensor, spans)
        for i, grad in zip(self._ids, grads, strict=False):
            _check_apart(f"params[{i}].grad", grad, spans)

        copies = [p if p.is_contiguous() else p.detach().contiguous() for p in self._params]
        self._staged = [
            (p, copy) for p, copy in zip(self._params, copies, strict=True) if copy is not p
        ]
        self._table["w"] = _addresses(copies)
        self._table["w0"] = _addresses(self._anchors)
        self._table["mask"] = _addresses(self._masks)
        self._spans = spans
        self._places = Places(
            t for t in (*self._params, *self._anchors, *self._masks) if t is not None
        )


def _addresses(tensors: Iterable[Tensor | None]) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _check_apart(name: str, tensor: Tensor, spans: Spans) -> None:
    """Raise if a tensor lacks memory or shares it with a parameter."""
    check_storage(name, tensor)
    if tensor.numel():
        spans.check_outside(name, *extent(tensor))


def standard_normal(
    out: Tensor, *, seed: int, step: int = 0, param: int = 0, first: int = 0
) -> Tensor:
    """Fill a contiguous CPU tensor with the normals of an address; see `fastllc.standard_normal`.

    Examples
    --------
    >>> standard_normal(torch.empty(4), seed=0)[:2]
    tensor([ 0.9911, -0.9247])
    """
    _core.standard_normal(
        DTYPES[out.dtype],
        out.data_ptr(),
        out.numel(),
        first,
        seed,
        step,
        param,
        torch.get_num_threads(),
    )
    return out


def localization_penalty(
    params: Sequence[Tensor],
    anchors: Sequence[Tensor],
    strength: float,
    out: Iterable[Tensor | None],
) -> float:
    """Return strength/2 * sum ||w - w0||^2, and write out = strength * (w - w0) where given.

    All tensors are contiguous CPU tensors of one dtype that `check_tensor` has passed.

    Examples
    --------
    >>> localization_penalty([torch.ones(2)], [torch.zeros(2)], 3.0, [None])
    3.0
    """
    pairs = np.zeros(len(params), _core.PAIR)
    for row, w, w0, target in zip(pairs, params, anchors, out, strict=True):
        row["w"], row["w0"], row["numel"] = w.data_ptr(), w0.data_ptr(), w.numel()
        row["out"] = 0 if target is None else target.data_ptr()
    return _core.localization_penalty(
        DTYPES[params[0].dtype], pairs, strength, torch.get_num_threads()
    )
