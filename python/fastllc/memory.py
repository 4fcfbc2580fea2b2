"""Whether native code may touch a tensor: what it is, and where its memory lies."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = [
    "FLOATS",
    "Places",
    "Spans",
    "check_disjoint",
    "check_like",
    "check_storage",
    "check_tensor",
    "extent",
    "short",
]

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raise if a tensor cannot be sampled: see the messages.

    Examples
    --------
    >>> check_tensor("params[0]", torch.zeros(3, dtype=torch.int32))
    Traceback (most recent call last):
    TypeError: params[0] must be one of float32, float64, bfloat16, float16, got int32
    """
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense (torch.strided), got {tensor.layout}")
    if tensor.dtype not in FLOATS:
        raise TypeError(
            f"{name} must be one of {', '.join(map(short, FLOATS))}, got {short(tensor.dtype)}"
        )
    if tensor.device.type == "meta":
        raise TypeError(f"{name} must have storage, got a meta tensor")
    if tensor.is_conj() or tensor.is_neg():
        raise TypeError(f"{name} must be materialised, got a lazy conj or neg view")
    if not tensor.is_contiguous() and _overlaps_itself(tensor):
        raise ValueError(
            f"{name} must have one memory location for each element, got an expanded or "
            f"overlapping view with shape {tuple(tensor.shape)} and strides {tensor.stride()}"
        )


def check_like(name: str, tensor: Tensor, model: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise unless `tensor` can stand beside the parameter `model`, in its dtype or the given one.

    Examples
    --------
    >>> check_like("params[0].grad", torch.zeros(2), torch.zeros(3))
    Traceback (most recent call last):
    ValueError: params[0].grad must have shape (3,), got (2,)
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise RuntimeError(f"{name} must be dense (torch.strided), got {tensor.layout}")
    dtype = model.dtype if dtype is None else dtype
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {short(dtype)}, got {short(tensor.dtype)}")
    if tensor.device != model.device:
        raise ValueError(f"{name} must be on {model.device}, got {tensor.device}")
    if tensor.shape != model.shape:
        raise ValueError(f"{name} must have shape {tuple(model.shape)}, got {tuple(tensor.shape)}")


def short(dtype: torch.dtype) -> str:
    """Name of a dtype.

    Examples
    --------
    >>> short(torch.float32)
    'float32'
    """
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


def extent(tensor: Tensor) -> tuple[int, int]:
    """First and one-past-last byte of the memory that a non-empty tensor spans.

    Examples
    --------
    >>> start, stop = extent(torch.zeros(3, 2)[:, 0])
    >>> stop - start
    20
    """
    start = tensor.data_ptr()
    last = sum(s * (n - 1) for s, n in zip(tensor.stride(), tensor.shape, strict=True))
    return start, start + (last + 1) * tensor.element_size()


class Spans:
    """Memory that will be written, as disjoint spans in order: the i-th is [starts[i], stops[i]).

    `starts` has an infinity behind the last, so that ``starts[bisect_right(stops, start)] < stop``
    tells whether [start, stop) meets a span, if it is not empty.

    Examples
    --------
    >>> x = torch.zeros(4)
    >>> Spans([x[:2]]).check_outside("y", *extent(x[2:]))
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        spans = sorted(extent(t) for t in tensors if t.numel())
        self.starts = [*(start for start, _ in spans), math.inf]
        self.stops = [stop for _, stop in spans]
        for stop, following in zip(self.stops, self.starts[1:], strict=True):
            if following < stop:
                raise ValueError(
                    "params must not share memory with each other, got two that both span address "
                    f"{following:#x}"
                )

    def check_outside(self, name: str, start: int, stop: int) -> None:
        """Raise if the memory [start, stop) meets one of the spans."""
        if start < stop and self.starts[bisect_right(self.stops, start)] < stop:
            raise ValueError(
                f"{name} must not share memory with a parameter, got one at address {start:#x}"
            )


class Places:
    """Where tensors lie whose memory has been checked.

    Their storages are held and asked again: as long as they neither move nor change their size,
    what the tensors' addresses point to is theirs, whichever storages the tensors have by now.

    Examples
    --------
    >>> x = torch.zeros(4)
    >>> places = Places([x])
    >>> x.untyped_storage().resize_(8) and places.kept()
    False
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._places = []
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._places.append(
                (tensor, tensor.data_ptr(), storage, storage.data_ptr(), len(storage))
            )

    def kept(self) -> bool:
        """Whether all tensors and their storages are where they were, and as large."""
        for tensor, start, storage, base, size in self._places:
            if tensor.data_ptr() != start or storage.data_ptr() != base or len(storage) != size:
                return False
        return True


def check_storage(name: str, tensor: Tensor) -> None:
    """Raise if the storage is too small for the tensor, as after a resize.

    Examples
    --------
    >>> x = torch.zeros(4)
    >>> check_storage("x", x)
    >>> check_storage("x", x if x.untyped_storage().resize_(8) else x)
    Traceback (most recent call last):
    ValueError: x must have its memory, got a storage of 8 bytes for 4 elements
    """
    if tensor.numel():
        start, stop = extent(tensor)
        storage = tensor.untyped_storage()
        if start == 0 or stop > storage.data_ptr() + storage.nbytes():
            raise ValueError(
                f"{name} must have its memory, got a storage of {storage.nbytes()} bytes for "
                f"{tensor.numel()} elements"
            )


def check_disjoint(params: Iterable[Tensor]) -> None:
    """Raise ValueError if two of the tensors share memory.

    Examples
    --------
    >>> x = torch.zeros(4)
    >>> check_disjoint([x[:2], x[2:]])
    """
    Spans(params)
