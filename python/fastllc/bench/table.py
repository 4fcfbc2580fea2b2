"""The table of comparisons, in Markdown that is aligned for a terminal too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from fastllc.bench.comparison import (
    COMPILED,
    DEVINTERP,
    FLOOR,
    LOOP,
    OURS,
    OURS_COMPILED,
    Comparison,
)

__all__ = ["duration", "multiple", "tables"]

_UNITS = ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)


def tables(found: Sequence[Comparison], devinterp: str = "") -> str:
    """Write a table of each kind, one row for each case.

    Parameters
    ----------
    found : sequence of Comparison
        What was measured, those of a kind together.
    devinterp : str
        The version of devinterp, or nothing.

    Returns
    -------
    str
        Ours in units of time, the others as multiples of it: the median, and behind the fastest
        pure PyTorch and devinterp the quartiles. Behind compiled ones what compiling took.

    Examples
    --------
    >>> seconds = {"fastllc": [1e-5, 2e-5], "torch eager": [2e-5, 5e-5]}
    >>> print(tables([Comparison("step", "small", seconds, {"torch.compile": "no compiler"})]))
    | step  | fastllc | fastest pure PyTorch     | torch.compile |
    |-------|---------|--------------------------|---------------|
    | small | 15.0 µs | 2.25x (2.12-2.38), eager | not available |
    """
    return "\n\n".join(_table(kind, list(group), devinterp) for kind, group in _by_kind(found))


def _by_kind(found: Sequence[Comparison]) -> groupby[str, Comparison]:
    return groupby(found, lambda each: each.kind)


def _table(kind: str, found: list[Comparison], devinterp: str) -> str:
    names = {name for each in found for name in (*each.seconds, *each.missing)}
    # Other ways of pure PyTorch are in their column where they are the fastest.
    order = [OURS_COMPILED, LOOP, COMPILED, DEVINTERP, FLOOR]
    others = [name for name in order if name in names]
    titles = [f"devinterp {devinterp}".rstrip() if n == DEVINTERP else n for n in others]
    rows = [[kind, OURS, "fastest pure PyTorch", *titles]]
    for each in found:
        fastest = each.fastest
        short = fastest.removeprefix("torch").lstrip(" ,.")
        rows.append(
            [
                each.case,
                duration(float(np.median(each.seconds[OURS]))),
                f"{_ratio(each, fastest)}, {short}",
                *(_cell(each, name) for name in others),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    lines = [
        "| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(each: Comparison, name: str) -> str:
    if name not in each.seconds:
        available = name not in (COMPILED, OURS_COMPILED)
        return each.missing.get(name, "") if available else "not available"
    if name in each.compile_seconds:
        return f"{multiple(each.ratio(name)[1])} + {each.compile_seconds[name]:.1f} s"
    return _ratio(each, name) if name == DEVINTERP else multiple(each.ratio(name)[1])


def _ratio(each: Comparison, name: str) -> str:
    low, median, high = (multiple(ratio) for ratio in each.ratio(name))
    return f"{median} ({low[:-1]}-{high[:-1]})"


def multiple(ratio: float) -> str:
    """Write a ratio with about three digits.

    Examples
    --------
    >>> multiple(0.0512), multiple(9.876), multiple(20.0), multiple(123.4)
    ('0.05x', '9.88x', '20.0x', '123x')
    """
    return f"{ratio:.{max(0, 2 - int(math.log10(max(ratio, 1))))}f}x"


def duration(seconds: float) -> str:
    """Write a time with its unit and three digits.

    Examples
    --------
    >>> duration(2.34e-5), duration(0.0123), duration(0.2), duration(3)
    ('23.4 µs', '12.3 ms', '200 ms', '3.00 s')
    """
    unit, size = next((u, s) for u, s in _UNITS if seconds >= s or u == "µs")
    return f"{multiple(seconds / size)[:-1]} {unit}"
