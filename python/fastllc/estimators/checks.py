"""Settings, refused in one voice: the argument, what it must be, what came."""

from __future__ import annotations

import math
from numbers import Integral, Real


def finite(name: str, value: object, expected: str = "finite") -> float:
    """`value` as a finite float; `expected` is what the error says it must be."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return number


def positive(name: str, value: object) -> float:
    """`value` as a finite float > 0."""
    number = finite(name, value, "finite and > 0")
    if number <= 0:
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return number


def non_negative(name: str, value: object) -> float:
    """`value` as a finite float >= 0."""
    number = finite(name, value, "finite and >= 0")
    if number < 0:
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
    return number


def integer(name: str, value: object, minimum: int, below: int | None = None) -> int:
    """`value` as an int >= `minimum`, and < `below` if given.

    Examples
    --------
    >>> integer("num_draws", 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: num_draws must be >= 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, got {value!r}")
    number = int(value)
    if number < minimum or (below is not None and number >= below):
        upper = "" if below is None else f" and < {below}"
        raise ValueError(f"{name} must be >= {minimum}{upper}, got {number}")
    return number
