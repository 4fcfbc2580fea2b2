"""How low-precision weights are read and written; see csrc/cpu/precisions.inl."""

from __future__ import annotations

import torch
from torch import Tensor

from fastllc.kernels import real_dtype

__all__ = ["read", "write", "write_at_random"]


def read(w: Tensor, residual: Tensor | None) -> Tensor:
    """Return weights in the precision of the arithmetic.

    Examples
    --------
    >>> read(torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([1], dtype=torch.int16)) - 1
    tensor([1.1921e-07])
    """
    wide = w.to(real_dtype(w.dtype))
    if residual is None or w.dtype not in (torch.bfloat16, torch.float16):
        return wide
    if w.dtype == torch.bfloat16:
        return (wide.view(torch.int32) + residual.to(torch.int32)).view(torch.float32)
    return torch.where(residual.to(w.dtype) == w, residual, wide)


def write(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return weights as they are stored, and the residual that makes them exact.

    Examples
    --------
    >>> write(torch.tensor([1.0 + 2**-20]), torch.bfloat16)
    (tensor([1.], dtype=torch.bfloat16), tensor([8], dtype=torch.int16))
    """
    if dtype == torch.float16:
        return x.to(dtype), x
    if dtype != torch.bfloat16:
        return x, None
    bits = x.contiguous().view(torch.int32)
    number = ~x.isnan()
    upper = bits + torch.where(number, 0x8000, 0)
    residual = torch.where(number, bits & 0xFFFF, 0)
    return _upper_half(upper), torch.where(residual >= 0x8000, residual - 0x10000, residual).to(
        torch.int16
    )


def write_at_random(x: Tensor, dtype: torch.dtype, random: Tensor) -> Tensor:
    """Return weights rounded up or down at random, so that their mean is exact.

    Examples
    --------
    >>> half = torch.tensor([1.0 + 2**-8])
    >>> write_at_random(half, torch.bfloat16, torch.tensor([0x8000]))
    tensor([1.0078], dtype=torch.bfloat16)
    """
    if dtype == torch.bfloat16:
        bits = x.contiguous().view(torch.int32)
        return _upper_half(bits + torch.where(x.isfinite(), random & 0xFFFF, 0).to(torch.int32))
    # Multiples of the spacing: 2^(exponent - 10), at least 2^-24.
    exponent = torch.frexp(x.abs().double())[1].clamp(min=-13) - 1
    scaled = torch.ldexp(x.abs().double(), 10 - exponent) * 2**13
    whole = (scaled.floor() + (random & 0x1FFF)).div(2**13, rounding_mode="floor")
    rounded = torch.ldexp(whole, exponent - 10).copysign(x.double())
    return torch.where(x.isfinite(), rounded, x.double()).to(dtype)


def _upper_half(bits: Tensor) -> Tensor:
    return (bits >> 16).to(torch.int16).view(torch.bfloat16)
