"""Rows of the table: what was measured, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.end_to_end.runs import FloatArray, Run

__all__ = ["HEADER", "Row"]

HEADER = (
    f"  {'':<26}{'chains':>7}{'steps':>6}{'s':>9}{'ms/step':>10}{'IQR':>6}{'compile s':>10}"
    f"{'MiB/chain':>11}{'LLC':>10} {'+- error':<9}{'apart':>7}"
    f"{'ratio':>8} {'(quartiles)':<18}{'':<36}{'target':<9}"
)

# In standard errors. By chance, estimates of one thing are further apart once in 370 times.
APART = 3.0


@dataclass
class Row:
    """One line of the table.

    Attributes
    ----------
    problem, name : str
        What was estimated, and by whom.
    chains, steps : int
        How many chains in one call, and how many steps each.
    runs : list of Run
        One for each round.
    against : str
        The row, of the same rounds, whose time a step of a chain this one's is divided by.
    whole : bool
        Whether these are times with compilation.
    ratios : list of float
        One for each round.
    apart : float, optional
        Distance from our estimate with as many steps, in standard errors of the difference.
    target : str
        Of the median ratio, such as ``>= 10``; or empty.
    note : str
        Why there are no numbers; or empty.
    """

    problem: str
    name: str
    chains: int
    steps: int
    runs: list[Run] = field(default_factory=list)
    against: str = ""
    whole: bool = False
    ratios: list[float] = field(default_factory=list)
    apart: float | None = None
    target: str = ""
    note: str = ""

    @property
    def llc(self) -> tuple[float, float]:
        """Mean over the chains of all rounds, which are independent, and its standard error."""
        chains = np.concatenate([run.llc for run in self.runs]) if self.runs else np.empty(0)
        if len(chains) < 2:
            return math.nan, math.nan
        return float(chains.mean()), float(chains.std(ddof=1) / math.sqrt(len(chains)))

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None where there is none, or no number."""
        if not self.target or not self.ratios:
            return None
        sign, bound = self.target.split()
        ratio = float(np.median(self.ratios))
        return ratio <= float(bound) if sign == "<=" else ratio >= float(bound)

    def relate(self, rows: list[Row]) -> None:
        """Fill in what follows from this row and others of the same rounds."""
        other = next((row for row in rows if row.name == self.against), None)
        if other is not None and self.runs and other.runs:
            costs = self._costs(self.whole) / other._costs(self.whole)
            self.ratios = costs.tolist()
        ours = next((r for r in rows if r.name.startswith("fastllc") and _same(r, self)), None)
        if ours is not None and ours is not self and self.runs:
            (mine, error), (theirs, other_error) = self.llc, ours.llc
            apart = (mine - theirs) / math.hypot(error, other_error)
            self.apart = None if math.isnan(apart) else apart

    def _costs(self, whole: bool) -> FloatArray:
        """Seconds a step of a chain in each round."""
        seconds = [run.seconds + whole * run.compile_seconds for run in self.runs]
        return np.array(seconds) / (self.steps * self.chains)

    def to_json(self) -> dict[str, Any]:
        """Return all fields, with what follows from them."""
        llc, error = (None if math.isnan(x) else x for x in self.llc)
        return {
            **asdict(self),
            "median_seconds": float(np.median([r.seconds for r in self.runs]) if self.runs else 0),
            "llc": llc,
            "llc_error": error,
            "ratio": float(np.median(self.ratios)) if self.ratios else None,
            "passed": self.passed,
        }

    def __str__(self) -> str:
        if self.note:
            return f"  {self.name:<26}{self.note}"
        seconds = [run.seconds for run in self.runs]
        low, middle, high = np.percentile(seconds, [25, 50, 75])
        compiling = float(np.median([run.compile_seconds for run in self.runs]))
        peaks = [run.peak for run in self.runs if run.peak is not None]
        peak = f"{max(peaks) / self.chains / 2**20:.2f}" if peaks else ""
        llc = "{:>10.2f} {:<9}".format(self.llc[0], f"+- {self.llc[1]:.2g}")
        if self.apart is None:
            apart = ""
        else:
            apart = f"{self.apart:+.1f}" + "!" * (abs(self.apart) > APART)
        ratio = spread = ""
        if self.ratios:
            low_ratio, median, high_ratio = np.percentile(self.ratios, [25, 50, 75])
            ratio, spread = f"{median:.3g}x", f"({low_ratio:.3g}-{high_ratio:.3g})"
        words = f"{self.against}{', with compilation' * self.whole}"
        mark = {True: "pass", False: "MISSED", None: ""}[self.passed]
        return (
            f"  {self.name:<26}{self.chains:>7}{self.steps:>6}{middle:>9.3f}"
            f"{middle / self.steps * 1e3:>10.4g}{(high - low) / middle:>6.0%}"
            f"{f'{compiling:.1f}' if compiling else '':>10}{peak:>11}"
            f"{llc if self.runs[0].llc else ' ' * 20}{apart:>7}"
            f"{ratio:>8} {spread:<18}{words:<36}{self.target:<9}{mark}"
        ).rstrip()


def _same(ours: Row, other: Row) -> bool:
    """Whether both ran the same chains for the same time."""
    return (ours.chains, ours.steps) == (other.chains, other.steps)
