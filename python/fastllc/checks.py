"""Arguments that must be numbers."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["check_int", "check_number"]


def check_int(name: str, value: Any, bits: int) -> int:
    """Return an integer in [0, 2**bits) as an int; raise for anything else.

    Examples
    --------
    >>> check_int("seed", 2**64, 64)
    Traceback (most recent call last):
    ValueError: seed must be in [0, 2**64), got 18446744073709551616
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not 0 <= number < 2**bits:
        raise ValueError(f"{name} must be in [0, 2**{bits}), got {number}")
    return number


def check_number(name: str, value: Any) -> float:
    """Return a real number as a float; raise for anything else.

    Examples
    --------
    >>> check_number("lr", "fast")
    Traceback (most recent call last):
    TypeError: lr must be a number, got 'fast'
    """
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must fit a double, got {value}") from None
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
