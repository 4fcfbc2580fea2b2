"""The noise of csrc/noise.h in readable PyTorch, bit for bit on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["STREAMS", "philox", "random_words", "root", "standard_normal"]

# csrc/noise.h
STREAMS = {"proposal": 0, "rounding": 1, "momentum": 2, "sketch": 3}

_LOW = 0xFFFFFFFF
_hex = float.fromhex


class _Format:
    """Constants of one precision; see csrc/polynomials.h."""

    def __init__(
        self,
        bits: torch.dtype,
        mantissa: int,
        root_half: int,
        two_log2: str,
        log: str,
        sin: str,
        cos: str,
    ) -> None:
        self.bits, self.mantissa, self.root_half = bits, mantissa, root_half
        self.two_log2 = _hex(two_log2)
        self.log, self.sin, self.cos = ([_hex(c) for c in s.split()] for s in (log, sin, cos))


_FORMATS = {
    torch.float32: _Format(
        torch.int32,
        23,
        0x3F3504F3,
        "0x1.62e43p+0",
        log="0x1.55557ap+0 0x1.995eb4p-1 0x1.31e374p-1",
        sin="0x1.921fb6p+0 -0x1.4abc16p-1 0x1.467e72p-4 -0x1.331b7ep-8",
        cos="-0x1.3bd3a2p+0 0x1.03b1a2p-2 -0x1.4eb87p-6",
    ),
    torch.float64: _Format(
        torch.int64,
        52,
        0x3FE6A09E00000000,
        "0x1.62e42fefa39efp+0",
        log="0x1.5555555555592p+0 0x1.999999997ff52p-1 0x1.24924941dcda9p-1 0x1.c71c52186fb9bp-2"
        " 0x1.74663c0b55ddfp-2 0x1.39a1ffb4d858ap-2 0x1.2f02d6bf0a38ep-2",
        sin="0x1.921fb54442d18p+0 -0x1.4abbce625bdaep-1 0x1.466bc6774afcfp-4 -0x1.32d2ccd46b3ebp-8"
        " 0x1.507821d726d3ep-13 -0x1.e2f3f45e1184fp-19 0x1.dfc7600f3a353p-25",
        cos="-0x1.3bd3cc9be45a5p+0 0x1.03c1f081b14eap-2 -0x1.55d3c7dcb8afdp-6"
        " 0x1.e1f4fbfe764e3p-11 -0x1.a6ca019f096b4p-16 0x1.f3ef96bbe54bbp-22",
    ),
}


def philox(key: int, low: Tensor, high: int) -> list[Tensor]:
    """Philox4x32-10 (Salmon et al., SC 2011) of the counters ``high << 64 | low``.

    Parameters
    ----------
    key : int
        64 bits.
    low : Tensor of int64
        Low halves of the counters.
    high : int
        Their common high half, 64 bits.

    Returns
    -------
    list of 4 Tensors of int64
        The four output words, in [0, 2**32).

    Examples
    --------
    >>> [hex(int(word)) for word in philox(0, torch.zeros((), dtype=torch.int64), 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    k0, k1 = key & _LOW, key >> 32
    c0, c1 = low & _LOW, (low >> 32) & _LOW
    c2, c3 = torch.full_like(low, high & _LOW), torch.full_like(low, high >> 32)
    for _ in range(10):
        hi0, lo0 = _multiply(c0, 0xD2511F53)
        hi1, lo1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return [c0, c1, c2, c3]


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    product = a * b  # wraps modulo 2**64
    return (product >> 32) & _LOW, product & _LOW


def standard_normal(
    numel: int,
    *,
    seed: int,
    step: int = 0,
    param: int = 0,
    first: int = 0,
    stream: str = "proposal",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the normals of elements first .. first + numel - 1; see `fastllc.standard_normal`.

    Examples
    --------
    >>> standard_normal(2, seed=0)
    tensor([ 0.9911, -0.9247])
    """
    per_block = 4 if dtype == torch.float32 else 2
    start, stop = first // per_block, -(-(first + numel) // per_block)
    block = torch.arange(start, stop, device=device)
    words = philox(seed, block, param << 40 | STREAMS[stream] << 32 | step)
    if dtype == torch.float32:
        pairs = [(words[0], words[1]), (words[2], words[3])]
    else:
        pairs = [(words[0] << 32 | words[1], words[2] << 32 | words[3])]
    normals = [z for pair in pairs for z in _box_muller(*pair, dtype)]
    skip = first - start * per_block
    return torch.stack(normals, -1).flatten()[skip : skip + numel]


def _box_muller(
    radius_word: Tensor, angle_word: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    radius = root(_minus_two_log(radius_word, dtype))
    sine, cosine = _sincos_turn(angle_word, dtype)
    return radius * cosine, radius * sine


def random_words(
    numel: int,
    *,
    seed: int,
    step: int,
    param: int,
    first: int = 0,
    stream: str = "rounding",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return one 32-bit random word for each element, as int64.

    Examples
    --------
    >>> random_words(1, seed=0, step=0, param=0, stream="proposal")
    tensor([1713891541])
    """
    start, stop = first // 4, -(-(first + numel) // 4)
    block = torch.arange(start, stop, device=device)
    words = philox(seed, block, param << 40 | STREAMS[stream] << 32 | step)
    return torch.stack(words, -1).flatten()[first - 4 * start : first - 4 * start + numel]


def root(x: Tensor) -> Tensor:
    """Return the square root, correctly rounded.

    Examples
    --------
    >>> root(torch.tensor(2.25))
    tensor(1.5000)
    """
    # torch's square root of long CPU vectors is not correctly rounded (17 % are an ulp off).
    return torch.from_numpy(np.asarray(np.sqrt(x.numpy()))) if x.device.type == "cpu" else x.sqrt()


def _horner(coefficients: list[float], x: Tensor) -> Tensor:
    y = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        y = y * x + c
    return y


def _minus_two_log(word: Tensor, dtype: torch.dtype) -> Tensor:
    f = _FORMATS[dtype]
    if dtype == torch.float32:
        x = word.to(dtype) + 0.5
        bits_of_word = 32
    else:
        x = (word >> 32 & _LOW).to(dtype) * 2.0**32 + ((word & _LOW).to(dtype) + 0.5)
        bits_of_word = 64
    one = 1 << f.mantissa
    i = x.view(f.bits) - f.root_half
    exponent = ((i >> f.mantissa) - bits_of_word).to(dtype)
    m = ((i & (one - 1)) + f.root_half).view(dtype)
    g = 2.0 - 2.0 * m
    s = g / (4.0 - g)
    z = s * s
    return (g + s * (g + z * _horner(f.log, z))) - exponent * f.two_log2


def _sincos_turn(word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    f = _FORMATS[dtype]
    bits = 32 if dtype == torch.float32 else 64
    word = word.to(f.bits)
    t = ((word << 2) | 2).to(dtype) * 2.0**-bits
    z = t * t
    s, c = t * _horner(f.sin, z), 1.0 + z * _horner(f.cos, z)
    quarter = (word + (1 << (bits - 3))) >> (bits - 2) & 3
    odd = (quarter & 1) == 1
    sine, cosine = torch.where(odd, c, s), torch.where(odd, s, c)
    return (
        torch.where(quarter >= 2, -sine, sine),
        torch.where((quarter == 1) | (quarter == 2), -cosine, cosine),
    )
