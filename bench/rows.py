"""Rows of the developers' tables: what was measured, its ratio, its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import torch

from fastllc.bench.timing import Call, interleave, quartiles, repeats
from fastllc.bench.workloads import STEPS, Shapes, Step, Unavailable, Workload

__all__ = ["HEADER", "Entry", "Row", "measure", "relate"]

HEADER = (
    f"  {'':<34}{'us a call':>13}{'ns/element':>11}{'IQR':>8}{'rounds':>7}"
    f"{'value':>10} {'(quartiles)':<18}{'':<34}{'target':<9}"
)


@dataclass
class Row:
    """One line of the table.

    Attributes
    ----------
    part, name : str
        What was measured, and where.
    elements, tensors : int
        Size of the workload.
    seconds : list of float
        Seconds a call, one number for each round.
    unit : str
        Of `value`: ``x <name>`` for a ratio of times, else a unit such as ``MiB``.
    value : float, optional
        What the target is for; ratios are medians of those within each round.
    quartiles : list of float
        First and third quartile of the ratios.
    target : str
        Such as ``<= 1.6``; or empty.
    note : str
        Why there are no numbers; or empty.

    Examples
    --------
    >>> Row("demo", "fastllc", value=1.5, target="<= 1.6").passed
    True
    """

    part: str
    name: str
    elements: int = 0
    tensors: int = 0
    seconds: list[float] = field(default_factory=list)
    unit: str = ""
    value: float | None = None
    quartiles: list[float] = field(default_factory=list)
    target: str = ""
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None where there is none, or no number."""
        if not self.target or self.value is None:
            return None
        sign, bound = self.target.split()
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)

    def to_json(self) -> dict[str, Any]:
        """Return all fields, with what follows from them."""
        median = float(np.median(self.seconds)) if self.seconds else None
        return {**asdict(self), "median_seconds": median, "passed": self.passed}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """Return the row that `to_json` described."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})

    def __str__(self) -> str:
        if self.note:
            return f"  {self.name:<34}{self.note}"
        times = " " * 39
        if self.seconds:
            low, middle, high = np.percentile(self.seconds, [25, 50, 75])
            times = (
                f"{middle * 1e6:>13,.1f}{middle * 1e9 / self.elements:>11.3f}"
                f"{(high - low) / middle:>8.0%}{len(self.seconds):>7}"
            )
        value = "" if self.value is None else f"{self.value:.4g}"
        spread = "({:.4g}-{:.4g})".format(*self.quartiles) if self.quartiles else ""
        mark = {True: "pass", False: "MISSED", None: ""}[self.passed]
        end = f"{value:>10} {spread:<18}{self.unit:<34}{self.target:<9}{mark}"
        return f"  {self.name:<34}{times}{end}".rstrip()


class Entry(NamedTuple):
    """What to measure, what to divide its time by, and the target of that ratio.

    Instead of a name, `against` may be ``us``: the value is then the time itself.
    """

    name: str
    against: str = ""
    target: str = ""


def relate(rows: Sequence[Row], entries: Sequence[Entry]) -> None:
    """Fill in values and targets of rows that were measured in the same rounds."""
    by_name = {row.name: row for row in rows}
    for name, against, target in entries:
        row, other = by_name[name], by_name.get(against)
        row.target = target
        if other is not None:
            row.unit = f"x {against}"
            if row.seconds and other.seconds:
                low, row.value, high = quartiles(np.divide(row.seconds, other.seconds))
                row.quartiles = [low, high]
        elif against == "us":
            row.unit, row.value = "us", float(np.median(row.seconds)) * 1e6


@torch.no_grad()
def measure(title: str, shapes: Shapes, rounds: int, entries: Sequence[Entry]) -> list[Row]:
    """Measure entries of `STEPS` in turn over one workload.

    Examples
    --------
    >>> entries = [Entry("torch copy_"), Entry("fastllc", "torch copy_")]
    >>> [row.unit for row in measure("demo", [(100,)], 3, entries)]
    ['', 'x torch copy_']
    """
    load = Workload(shapes)
    plural = "s" * (len(shapes) > 1)
    part = f"{title}: {load.elements:,} elements in {len(shapes)} tensor{plural}"
    rows = [Row(part, entry.name, load.elements, len(load.params)) for entry in entries]
    steps = {row.name: _build(row, load) for row in rows}
    count = repeats(load.elements)
    calls = {name: Call(step, load.rotate, count) for name, step in steps.items() if step}
    times = interleave(calls, rounds)
    for row in rows:
        row.seconds = times.get(row.name, [])
    relate(rows, entries)
    return rows


def _build(row: Row, load: Workload) -> Step | None:
    """Return the step that a row is about, or note why there is none."""
    try:
        return STEPS[row.name](load)
    except Unavailable as error:
        row.note = str(error)
        return None
