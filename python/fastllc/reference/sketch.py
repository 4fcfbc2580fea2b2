"""The count sketch of csrc/sketch.h in readable PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from fastllc.reference.noise import STREAMS, philox

__all__ = ["buckets_and_signs", "sketch"]


def buckets_and_signs(
    numel: int,
    dim: int,
    *,
    seed: int,
    param: int,
    first: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return bucket and sign of the elements first .. first + numel - 1 of a parameter, as int64.

    Examples
    --------
    >>> buckets, signs = buckets_and_signs(3, 100, seed=0, param=0)
    >>> (buckets - buckets[0]).tolist()
    [0, 1, 2]
    """
    element = torch.arange(first, first + numel, device=device)
    start, stop = first // 64, -(-(first + numel) // 64)
    counter = torch.arange(start, stop, device=device)
    words = torch.stack(philox(seed, counter, param << 40 | STREAMS["sketch"] << 32), -1)
    at, place = element // 64 - start, element % 64
    minus = words[at, place // 32] >> place % 32 & 1
    row = place // 16
    h = words[at, 2 + row // 2] >> 16 * (row % 2) & 0xFFFF
    return ((h * dim >> 16) + place % 16) % dim, 1 - 2 * minus


def sketch(x: Tensor, dim: int, *, seed: int, param: int, first: int = 0) -> Tensor:
    """Return the sketch of one parameter's worth of a vector, float64 of shape [dim].

    Examples
    --------
    >>> x = torch.tensor([3.0, 4.0])
    >>> sketch(x, 64, seed=0, param=0).square().sum()
    tensor(25., dtype=torch.float64)
    """
    buckets, signs = buckets_and_signs(
        x.numel(), dim, seed=seed, param=param, first=first, device=x.device
    )
    zeros = torch.zeros(dim, dtype=torch.float64, device=x.device)
    return zeros.index_add_(0, buckets, signs * x.flatten().double())
