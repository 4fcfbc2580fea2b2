"""Noise as a pure function of its address."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fastllc import kernels, reference
from fastllc.checks import check_int

__all__ = ["standard_normal"]


def standard_normal(
    size: int | Sequence[int],
    *,
    seed: int,
    step: int = 0,
    param: int = 0,
    first: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the standard normals z(seed, step, param, element) that a sampler adds to weights.

    Element e of the result, in row-major order, is element ``first + e`` of the tensor ``param``
    at that step. Bits come from Philox4x32-10 (Salmon et al., SC 2011) with key ``seed`` and the
    128-bit counter ``param << 104 | step << 64 | element // n``, where a counter gives n = 4
    normals in single and 2 in double precision, by the Box-Muller transform. They do not depend
    on the number of threads, the instruction set or how a tensor is cut into pieces. With
    ``step = param = 0`` they are torch's stateless normals of the key (seed, 0), to rounding.

    Parameters
    ----------
    size : int or sequence of int
        Shape of the result.
    seed : int
        Key, in [0, 2**64).
    step : int
        In [0, 2**32).
    param : int
        Parameter id, in [0, 2**24).
    first : int
        Index of the first element, >= 0.
    dtype : torch.dtype, optional
        float32 (the default) or float64; the two are different streams.
    device : optional
        Where the result lives; devices without a kernel use the PyTorch reference.

    Returns
    -------
    Tensor
        Of the given shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Examples
    --------
    >>> whole = standard_normal(10, seed=1)
    >>> part = standard_normal(3, seed=1, first=5)
    >>> torch.equal(whole[5:8], part)
    True
    """
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    seed = check_int("seed", seed, 64)
    step = check_int("step", step, 32)
    param = check_int("param", param, 24)
    first = check_int("first", first, 62)
    try:
        shape = tuple(map(operator.index, size if isinstance(size, Iterable) else (size,)))
    except TypeError:
        raise TypeError(f"size must be an int or a sequence of ints, got {size!r}") from None
    if any(n < 0 for n in shape):
        raise ValueError(f"size must not be negative, got {shape}")
    out = torch.empty(shape, dtype=dtype, device=device)
    if kernels.has_kernel(out):
        return kernels.standard_normal(out, seed=seed, step=step, param=param, first=first)
    return reference.standard_normal(
        out.numel(), seed=seed, step=step, param=param, first=first, dtype=dtype, device=out.device
    ).view(shape)
