"""Arguments, refused in one voice: the name, what it must be, what came."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

__all__ = [
    "boolean",
    "check_int",
    "check_number",
    "each",
    "finite",
    "integer",
    "non_negative",
    "positive",
]


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


def boolean(name: str, value: object) -> None:
    """Raise unless `value` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")


def each(name: str, value: object, check: Callable[[str, object], float]) -> None:
    """Check a number, or every number of a list that is not empty.

    Examples
    --------
    >>> each("lr", [0.1, -1.0], positive)
    Traceback (most recent call last):
        ...
    ValueError: lr[1] must be finite and > 0, got -1.0
    """
    if not isinstance(value, (list, tuple)):
        check(name, value)
        return
    if not value:
        raise ValueError(f"{name} must be a number or a list of them, got an empty list")
    for i, item in enumerate(value):
        check(f"{name}[{i}]", item)
