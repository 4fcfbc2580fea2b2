"""The only door to native code: tensors are checked here and packed into its tables."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core

__all__ = [
    "Segments",
    "Setting",
    "StepSums",
    "check_like",
    "check_tensor",
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


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raise if a tensor cannot be sampled: see the messages.

    Examples
    --------
    >>> check_tensor("params[0]", torch.zeros(3, dtype=torch.int32))
    Traceback (most recent call last):
    TypeError: params[0] must be float32 or float64, got int32
    """
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense (torch.strided), got {tensor.layout}")
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32 or float64, got {_short(tensor.dtype)}")
    if tensor.device.type == "meta":
        raise TypeError(f"{name} must have storage, got a meta tensor")
    if tensor.is_conj() or tensor.is_neg():
        raise TypeError(f"{name} must be materialised, got a lazy conj or neg view")
    if not tensor.is_contiguous() and _overlaps_itself(tensor):
        raise ValueError(
            f"{name} must have one memory location for each element, got an expanded or "
            f"overlapping view with shape {tuple(tensor.shape)} and strides {tensor.stride()}"
        )


def check_like(name: str, tensor: Tensor, model: Tensor) -> None:
    """Raise unless `tensor` can stand beside the parameter `model`."""
    if tensor.layout != torch.strided:
        raise RuntimeError(f"{name} must be dense (torch.strided), got {tensor.layout}")
    if tensor.dtype != model.dtype:
        raise TypeError(f"{name} must be {_short(model.dtype)}, got {_short(tensor.dtype)}")
    if tensor.device != model.device:
        raise ValueError(f"{name} must be on {model.device}, got {tensor.device}")
    if tensor.shape != model.shape:
        raise ValueError(f"{name} must have shape {tuple(model.shape)}, got {tuple(tensor.shape)}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _overlaps_itself(tensor: Tensor) -> bool:
    if tensor.numel() == 0:
        return False
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First and one-past-last byte of the memory that a non-empty tensor spans."""
    start = tensor.data_ptr()
    last = sum(s * (n - 1) for s, n in zip(tensor.stride(), tensor.shape, strict=True))
    return start, start + (last + 1) * tensor.element_size()


class _Spans:
    """Memory that will be written, as disjoint spans in order."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        spans = sorted(_extent(t) for t in tensors if t.numel())
        self._starts = [start for start, _ in spans]
        self._stops = [stop for _, stop in spans]
        for stop, following in zip(self._stops, self._starts[1:], strict=False):
            if following < stop:
                raise ValueError(
                    "params must not share memory with each other, got two that both span address "
                    f"{following:#x}"
                )

    def check_outside(self, name: str, start: int, stop: int) -> None:
        """Raise if the memory [start, stop) meets one of the spans."""
        at = bisect_left(self._stops, start + 1)  # the first span that ends after `start`
        if start < stop and at < len(self._starts) and self._starts[at] < stop:
            raise ValueError(
                f"{name} must not share memory with a parameter, got one at address {start:#x}"
            )


def check_disjoint(params: Iterable[Tensor]) -> None:
    """Raise ValueError if two of the tensors share memory.

    Examples
    --------
    >>> x = torch.zeros(4)
    >>> check_disjoint([x[:2], x[2:]])
    """
    _Spans(params)


class Segments:
    """A fixed list of parameter tensors, packed for native steps of one or many chains.

    Parameters
    ----------
    params : sequence of Tensor
        The weights, float32 or float64, all of one dtype, on the CPU; any strides without overlap.
        With `chains`, each is stacked: shape [chains, *shape].
    anchors : sequence of Tensor or None
        w0 for each parameter, contiguous, of the unstacked shape (shared by the chains); None
        where there is none.
    ids : sequence of int
        Parameter ids in the noise's address, in [0, 2**24).
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
    >>> setting = Setting(0.1, 1.0, 0.0, 0.0, 0.0, float("inf"))
    >>> segments.step([torch.ones(3)], [[setting]], keys=[0], steps=[0])
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
        masks = [None] * len(params) if masks is None else masks
        for i, (param, anchor, mask) in enumerate(zip(params, anchors, masks, strict=True)):
            check_tensor(f"params[{i}]", param)
            if param.dtype != params[0].dtype:
                raise TypeError(
                    f"params[{i}] must be {_short(params[0].dtype)} like params[0], "
                    f"got {_short(param.dtype)}"
                )
            if param.device != params[0].device:
                raise ValueError(
                    f"params[{i}] must be on {params[0].device} like params[0], got {param.device}"
                )
            if chains is not None and (param.ndim == 0 or param.shape[0] != chains):
                raise ValueError(
                    f"params[{i}] must have shape [{chains}, ...], got {tuple(param.shape)}"
                )
            one = param if chains is None else param[0]
            if anchor is not None:
                check_like(f"anchors[{i}]", anchor, one)
            if mask is not None:
                check_like(f"masks[{i}]", mask, one.new_empty(one.shape, dtype=torch.bool))
            for name, shared in (("anchors", anchor), ("masks", mask)):
                if shared is not None and not shared.is_contiguous():
                    raise ValueError(f"{name}[{i}] must be contiguous, got {shared.stride()}")
        for name, values in (("groups", groups), ("firsts", firsts or [])):
            if min(values, default=0) < 0:
                raise ValueError(f"{name} must be >= 0, got {min(values)}")
        if not 0 <= min(ids) <= max(ids) < MAX_PARAMS:
            bad = max(ids) if max(ids) >= MAX_PARAMS else min(ids)
            raise ValueError(f"ids must be in [0, 2**24), got {bad}")
        if firsts is None and len(set(ids)) < len(ids):
            raise ValueError(f"ids must differ, or tensors would share their noise, got {ids}")
        self._params = list(params)
        self._anchors = [a for a in anchors if a is not None]
        self._masks = [m for m in masks if m is not None]  # kept alive
        self._torch_dtype, self._device = params[0].dtype, params[0].device
        self._shapes = [p.shape for p in params]
        self._bytes = [p.numel() * p.element_size() for p in params]
        self._weights: list[int] = []
        self._gradients: list[int] = []
        self._spans = self._check_weights()

        table = np.zeros(len(params), _core.SEGMENT)
        for row, param, anchor, mask in zip(table, params, anchors, masks, strict=True):
            stride = param.numel() // chains if chains else 0
            row["numel"] = param.numel() if chains is None else stride
            row["w_stride"] = row["grad_stride"] = stride
            row["w0"] = 0 if anchor is None else anchor.data_ptr()
            row["mask"] = 0 if mask is None else mask.data_ptr()
        table["param"] = ids
        table["group"] = groups
        table["first"] = 0 if firsts is None else firsts
        self._table = table
        count = 1 if chains is None else chains
        self._chains = np.ones(count, _core.CHAIN)
        self._settings = np.zeros((max(groups) + 1, count), _core.SETTING)
        self._given: Sequence[Sequence[Setting]] | None = None
        self._sums = StepSums(
            np.zeros((count, len(params), len(_core.MOMENTS))),
            np.zeros((count, len(params)), np.int64),
        )
        self._native = _core.StepTables(
            DTYPES[self._torch_dtype], table, self._chains, self._settings, *self._sums
        )

    def step(
        self,
        grads: Sequence[Tensor],
        settings: Sequence[Sequence[Setting]],
        keys: Sequence[int],
        steps: Sequence[int],
        *,
        active: Sequence[bool] | None = None,
        moments: bool = False,
    ) -> bool:
        """Advance every active chain by one fused SGLD step, in place.

        Parameters
        ----------
        grads : sequence of Tensor
            Gradients of the mean loss, of the parameters' shapes and dtype.
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
        TypeError, ValueError, RuntimeError
            If a gradient does not fit its parameter or shares memory with one. Nothing has been
            written then.
        """
        staged: list[tuple[Tensor, Tensor]] = []
        weights: list[int] = []
        gradients: list[int] = []
        keep: list[Tensor] = []
        dtype, device, strided = self._torch_dtype, self._device, torch.strided
        for i, (param, shape, grad) in enumerate(
            zip(self._params, self._shapes, grads, strict=True)
        ):
            if param.shape != shape or param.dtype is not dtype:
                raise ValueError(
                    f"params[{i}] must stay as it was registered, {_short(dtype)} of "
                    f"shape {tuple(shape)}, got {_short(param.dtype)} {tuple(param.shape)}"
                )
            if (
                grad.dtype is not dtype
                or grad.layout is not strided
                or grad.shape != shape
                or grad.device != device
            ):
                check_like(f"grads[{i}]", grad, param)
            if not grad.is_contiguous() or grad.is_neg():
                grad = grad.contiguous().resolve_neg()
                keep.append(grad)
            if param.is_contiguous():
                weights.append(param.data_ptr())
            else:
                copy = param.detach().contiguous()
                staged.append((param, copy))
                weights.append(copy.data_ptr())
            gradients.append(grad.data_ptr())
        if weights != self._weights:
            self._spans = self._check_weights()
            self._table["w"] = weights
            self._weights = [] if staged else weights
        if gradients != self._gradients or staged:
            for i, (start, size) in enumerate(zip(gradients, self._bytes, strict=True)):
                self._spans.check_outside(f"grads[{i}]", start, start + size)
            self._table["grad"] = gradients
            self._gradients = gradients
        if settings != self._given:
            self._settings[...] = settings
            self._given = settings
        self._chains["key"] = keys
        self._chains["step"] = steps
        if active is not None:
            self._chains["active"] = active
        nonfinite = self._native.run(moments, torch.get_num_threads())
        if staged:
            with torch.no_grad():
                for param, copy in staged:
                    param.copy_(copy)
        torch.autograd.graph.increment_version(self._params)
        return nonfinite == 0

    def _check_weights(self) -> _Spans:
        """Check what may have changed when a parameter has moved in memory."""
        for i, param in enumerate(self._params):
            check_tensor(f"params[{i}]", param)
            if param.device != self._device:
                raise ValueError(f"params[{i}] must stay on {self._device}, got {param.device}")
        spans = _Spans(self._params)
        for i, tensor in enumerate((*self._anchors, *self._masks)):
            if tensor.numel():
                spans.check_outside(f"anchor or mask {i}", *_extent(tensor))
        return spans

    @property
    def sums(self) -> StepSums:
        """What the last step summed; the next one writes over it."""
        return self._sums


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
