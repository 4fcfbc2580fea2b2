"""Native code beside the step: noise and the localization penalty; and whether there is any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from fastllc import _core
from fastllc.kernels import cuda, streams
from fastllc.kernels.tables import DTYPES

__all__ = [
    "has_kernel",
    "localization_penalty",
    "on_device",
    "standard_normal",
    "use_reference",
]

_reference = False


def use_reference(enabled: bool = True) -> None:
    """Let samplers that are made from now on step in plain PyTorch instead of native code.

    It makes the same noise, and the same weights up to rounding (on the CPU the same bits), but
    slowly. It is how tensors on a CUDA device are sampled where there are no kernels for it, which
    is otherwise an error, and how a step of native code is compared with the formulas.

    Parameters
    ----------
    enabled : bool
        False: native code again.

    Examples
    --------
    >>> import fastllc
    >>> fastllc.use_reference()
    >>> has_kernel(torch.zeros(1))
    False
    >>> fastllc.use_reference(False)
    """
    global _reference
    _reference = enabled


def has_kernel(tensor: Tensor) -> bool:
    """Whether native code handles this tensor's device, and is to.

    Raises
    ------
    RuntimeError
        If it is a CUDA device that no kernels are there for.

    Examples
    --------
    >>> has_kernel(torch.zeros(1))
    True
    """
    if _reference:
        return False
    if on_device(tensor):
        cuda.load(tensor.device)
        return True
    return tensor.device.type == "cpu"


def on_device(tensor: Tensor) -> bool:
    """Whether a tensor is on a CUDA device.

    Examples
    --------
    >>> on_device(torch.zeros(1))
    False
    """
    return tensor.device.type == "cuda"


def standard_normal(
    out: Tensor, *, seed: int, step: int = 0, param: int = 0, first: int = 0
) -> Tensor:
    """Fill a contiguous tensor with the normals of an address; see `fastllc.standard_normal`.

    Examples
    --------
    >>> standard_normal(torch.empty(4), seed=0)[:2]
    tensor([ 0.9911, -0.9247])
    """
    address = out.data_ptr(), out.numel(), first, seed, step, param
    dtype = DTYPES[out.dtype]
    if not on_device(out):
        _core.standard_normal(dtype, *address, torch.get_num_threads())
    elif out.numel():
        device = out.device
        cuda.load(device).standard_normal(
            int(dtype), *address, device.index, streams.current_stream(device)
        )
    return out


def localization_penalty(
    params: Sequence[Tensor],
    anchors: Sequence[Tensor],
    strength: float,
    out: Iterable[Tensor | None],
) -> Tensor:
    """Return strength/2 * sum ||w - w0||^2, and write out = strength * (w - w0) where given.

    All tensors are contiguous, on one device and of one dtype, and `check_tensor` has passed them.
    The result is in double precision, on their device.

    Examples
    --------
    >>> localization_penalty([torch.ones(2)], [torch.zeros(2)], 3.0, [None])
    tensor(3., dtype=torch.float64)
    """
    pairs = np.zeros(len(params), _core.PAIR)
    for row, w, w0, target in zip(pairs, params, anchors, out, strict=True):
        row["w"], row["w0"], row["numel"] = w.data_ptr(), w0.data_ptr(), w.numel()
        row["out"] = 0 if target is None else target.data_ptr()
    dtype, device = DTYPES[params[0].dtype], params[0].device
    if not on_device(params[0]):
        value = _core.localization_penalty(dtype, pairs, strength, torch.get_num_threads())
        return torch.tensor(value, dtype=torch.float64, device=device)
    module = cuda.load(device)
    room = max(1, module.localization_workspace(int(dtype), pairs))
    workspace = torch.zeros(room, dtype=torch.uint8, device=device)
    result = torch.zeros((), dtype=torch.float64, device=device)
    module.localization_penalty(
        int(dtype),
        pairs,
        strength,
        device.index,
        streams.current_stream(device),
        result.data_ptr(),
        workspace.data_ptr(),
    )
    return result
