"""Rows of what was timed on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.rows import Row
from fastllc.bench.timing import quartiles

__all__ = ["of_copy", "rows_of"]


def of_copy(row: Row, copy: Row, ratio: float, target: str) -> None:
    """Say which share of the copy's bandwidth a step reaches that moves `ratio` times its bytes."""
    shares = 100 * ratio * np.divide(copy.seconds, row.seconds)
    low, row.value, high = quartiles(shares)
    row.quartiles, row.unit, row.target = [low, high], "% of copy bandwidth", target


def rows_of(
    part: str, elements: int, tensors: int, times: Mapping[str, Sequence[float]]
) -> list[Row]:
    """Make a row of each step."""
    return [Row(part, name, elements, tensors, list(found)) for name, found in times.items()]
