"""The rows of the tables that native code reads, as Python sees them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core

__all__ = [
    "DTYPES",
    "MAX_PARAMS",
    "MAX_SKETCH",
    "MAX_STEP",
    "Member",
    "Setting",
    "Sketch",
    "StepSums",
    "real_dtype",
]

DTYPES = {
    torch.float32: _core.DType.float32,
    torch.float64: _core.DType.float64,
    torch.bfloat16: _core.DType.bfloat16,
    torch.float16: _core.DType.float16,
}
MAX_PARAMS = 2**24
MAX_STEP = 2**32 - 1
MAX_SKETCH: int = _core.MAX_SKETCH


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which weights of this dtype are computed with.

    Examples
    --------
    >>> real_dtype(torch.bfloat16)
    torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


class Setting(NamedTuple):
    """Settings of one (group, chain), named as in the samplers; the layout of ``_core.SETTING``.

    The first six are every rule's, the others those of some.

    Attributes
    ----------
    alpha, eps : decay of the mean square of the gradient, and what is added to its root
    start : the mean square before the first step
    corrected : 1 if averages are divided by 1 - decay**updates, else 0
    adapt_steps : the mean square is frozen after so many updates
    beta : decay of the mean gradient
    friction : share of the momentum that is lost in a step, or the diffusion factor

    Examples
    --------
    >>> Setting(0.1, nbeta=10.0).localization
    0.0
    """

    lr: float
    nbeta: float = 1.0
    localization: float = 0.0
    weight_decay: float = 0.0
    noise_level: float = 1.0
    bounding_box_size: float = math.inf
    alpha: float = 0.0
    eps: float = 1.0
    start: float = 0.0
    corrected: float = 0.0
    adapt_steps: float = math.inf
    beta: float = 0.0
    friction: float = 1.0


class Member(NamedTuple):
    """One parameter tensor that takes part in steps.

    With K chains `w` and its state are stacked, [K, *shape]; the mask is shared, [*shape], and so
    is the anchor, unless there are A of them, [A, *shape].

    Attributes
    ----------
    w : the weights; any strides without overlap
    id : parameter id in the noise's address, in [0, 2**24); errors name tensors by it
    group : row of the settings
    w0 : anchor, contiguous, of w's dtype
    mask : boolean, contiguous; elements that are False keep their weight
    momentum, square_avg : state of the rules that have it, contiguous, in `real_dtype`
    residual : what a low-precision weight cannot hold, contiguous: int16 for bfloat16, float32
        for float16; without it such weights are rounded stochastically
    first : for a shard of a larger tensor, the index of its first element in that, row-major
    born : the step in which it first takes part, when its state is set up
    """

    w: Tensor
    id: int
    group: int = 0
    w0: Tensor | None = None
    mask: Tensor | None = None
    momentum: Tensor | None = None
    square_avg: Tensor | None = None
    residual: Tensor | None = None
    first: int = 0
    born: int = 0


class Sketch(NamedTuple):
    """How a step is sketched; see csrc/sketch.h.

    Attributes
    ----------
    dim : number of buckets, in [1, MAX_SKETCH]
    seed : key of buckets and signs, in [0, 2**64)
    """

    dim: int
    seed: int


class StepSums(NamedTuple):
    """What a step summed, by (chain, tensor).

    Attributes
    ----------
    moments : array of float64, shape (chains, tensors, 13)
        Inner products, in the order of ``_core.MOMENTS`` and with the letters of csrc/moments.h;
        those of the last step that was asked for them.
    nonfinite : array of int64, shape (chains, tensors)
        Number of updated weights that are NaN or infinite after the step.
    """

    moments: NDArray[np.float64]
    nonfinite: NDArray[np.int64]
