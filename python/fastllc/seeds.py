"""Keys of the noise: drawn, or derived from others."""

import hashlib
import struct

import torch

from fastllc.checks import check_int

__all__ = ["chain_key", "draw_key"]


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
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"noise_generator must be a torch.Generator, got {generator!r}")
        if generator.device.type != "cpu":
            raise ValueError(
                f"noise_generator must be a CPU generator, got one on {generator.device}"
            )
    high, low = torch.randint(0, 2**32, (2,), generator=generator, device="cpu").tolist()
    return int(high) << 32 | int(low)
