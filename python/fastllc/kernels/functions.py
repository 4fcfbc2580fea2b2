"""Native code beside the step: noise and the localization penalty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from fastllc import _core
from fastllc.kernels.tables import DTYPES

__all__ = ["has_kernel", "localization_penalty", "standard_normal"]


def has_kernel(tensor: Tensor) -> bool:
    """Whether native code handles this tensor's device.

    Examples
    --------
    >>> has_kernel(torch.zeros(1))
    True
    """
    return tensor.device.type == "cpu"


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
