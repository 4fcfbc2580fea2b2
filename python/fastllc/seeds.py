"""Keys of the noise: drawn, or derived from others."""

import hashlib
import operator
import struct
from typing import SupportsIndex

import torch

__all__ = ["chain_key", "check_int", "draw_key"]


def check_int(name: str, value: object, bits: int) -> int:
    """Return an integer in [0, 2**bits) as an int; raise for anything else.

    Examples
    --------
    >>> check_int("seed", 2**64, 64)
    Traceback (most recent call last):
    ValueError: seed must be in [0, 2**64), got 18446744073709551616
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an int, got {value!r}")
    number = operator.index(value)
    if not 0 <= number < 2**bits:
        raise ValueError(f"{name} must be in [0, 2**{bits}), got {number}")
    return number


def chain_key(seed: int, chain: int, checkpoint: int = 0, setting: int = 0) -> int:
    """Key of one chain: a hash, so that no two chains of any two seeds share their noise.

    With ``seed + chain`` chain 1 of seed 0 would be chain 0 of seed 1.

    Parameters
    ----------
    seed : int
        Seed of the whole run, in [0, 2**64).
    chain, checkpoint, setting : int
        Coordinates of the chain, in [0, 2**64).

    Returns
    -------
    int
        The first 64 bits of BLAKE2b over the four numbers (little-endian, 8 bytes each).

    Raises
    ------
    TypeError, ValueError
        If a number is not an int in that range.

    Examples
    --------
    >>> chain_key(0, 1) == chain_key(1, 0)
    False
    >>> hex(chain_key(0, 0))
    '0xa141af8a4a120dc5'
    """
    for name, value in (
        ("seed", seed),
        ("chain", chain),
        ("checkpoint", checkpoint),
        ("setting", setting),
    ):
        check_int(name, value, 64)
    message = struct.pack("<4Q", seed, chain, checkpoint, setting)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


def draw_key(generator: torch.Generator | None = None) -> int:
    """Draw a key, uniform in [0, 2**64), from a CPU generator (default: torch's own).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> 0 <= draw_key(generator) < 2**64
    True
    """
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"noise_generator must be a CPU generator, got one on {generator.device}")
    high, low = torch.randint(0, 2**32, (2,), generator=generator).tolist()
    return int(high) << 32 | int(low)
