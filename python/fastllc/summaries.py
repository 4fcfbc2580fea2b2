"""Estimates with what tells whether to believe them, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import overload

import numpy as np

__all__ = ["Summaries", "Summary", "decimals"]

_NUMBER = re.compile(r"[-+]?[0-9]+(?:[.][0-9]+)?%?")


@dataclass(frozen=True)
class Summary:
    """An estimate with what tells whether to believe it.

    Attributes
    ----------
    llc, sem, std : float
        Estimate, its Monte-Carlo standard error, and the standard deviation between chains.
    rhat, ess_bulk, ess_tail : float
        Of the loss over all draws.
    drift : float
        Change of the loss from the first to the last third of the draws, in standard errors.
    num_chains : int
        Chains used.
    diverged : tuple of int
        Chains left out because they diverged.
    warnings : tuple of str
        What is wrong and what to change; empty if nothing is.

    Examples
    --------
    >>> print(Summary(5.0, 0.1, 0.2, 1.002, 900.0, 800.0, -0.5, 4, (), ()))
    LLC              5.00 +- 0.10  (Monte-Carlo standard error)
    between chains   0.20  (standard deviation of 4 chains)
    R-hat            1.002
    ESS              900 bulk, 800 tail
    drift            -0.5 standard errors
    diverged         none
    """

    llc: float
    sem: float
    std: float
    rhat: float
    ess_bulk: float
    ess_tail: float
    drift: float
    num_chains: int
    diverged: tuple[int, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        digits = decimals(self.sem)
        chains = f"{self.num_chains} chain" + ("s" if self.num_chains != 1 else "")
        diverged = ", ".join(f"chain {i}" for i in self.diverged) or "none"
        rows = [
            ("LLC", f"{self.estimate}  (Monte-Carlo standard error)"),
            ("between chains", f"{self.std:.{digits}f}  (standard deviation of {chains})"),
            ("R-hat", f"{self.rhat:.3f}"),
            ("ESS", f"{self.ess_bulk:.0f} bulk, {self.ess_tail:.0f} tail"),
            ("drift", f"{self.drift:+.1f} standard errors"),
            ("diverged", diverged),
        ]
        lines = [f"{name:<17}{value}" for name, value in rows]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])

    @property
    def estimate(self) -> str:
        """The LLC and its standard error, to two digits of the error."""
        digits = decimals(self.sem)
        return f"{self.llc:.{digits}f} +- {self.sem:.{digits}f}"


@dataclass(frozen=True)
class Summaries(Sequence[Summary]):
    """Summaries of several checkpoints or settings; printed, a row for each, then the warnings.

    Attributes
    ----------
    summaries : tuple of Summary
        Those of one checkpoint after another, each with all of its settings.
    labels : tuple of mapping of str to str
        For each, what tells it from the others: the names and values of checkpoint and settings.

    Examples
    --------
    >>> one = Summary(5.0, 0.1, 0.2, 1.002, 900.0, 800.0, -0.5, 4, (), ())
    >>> two = Summary(12.0, 1.1, 2.0, 1.022, 500.0, 450.0, 0.5, 3, (1,), ("R-hat 1.022 ...",))
    >>> print(Summaries((one, two), ({"lr": "0.001"}, {"lr": "0.01"})))
       lr            LLC  between chains  R-hat  ESS bulk  ESS tail  drift  chains
    0.001  5.00 +- 0.10            0.20  1.002       900       800   -0.5       4
     0.01   12.0 +- 1.1             2.0  1.022       500       450   +0.5  3 of 4
    warning: lr 0.01: R-hat 1.022 ...
    """

    summaries: tuple[Summary, ...]
    labels: tuple[Mapping[str, str], ...]

    @overload
    def __getitem__(self, index: int) -> Summary: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Summary]: ...
    def __getitem__(self, index: int | slice) -> Summary | Sequence[Summary]:
        if isinstance(index, slice):
            return Summaries(self.summaries[index], self.labels[index])
        return self.summaries[index]

    def __len__(self) -> int:
        return len(self.summaries)

    def __str__(self) -> str:
        return "\n".join([*self._table(), *self._warnings()])

    def _table(self) -> list[str]:
        names = list(self.labels[0]) if self.labels else []
        titles = "LLC", "between chains", "R-hat", "ESS bulk", "ESS tail", "drift", "chains"
        rows = [[*names, *titles]]
        rows += [
            [*label.values(), *_cells(s)]
            for label, s in zip(self.labels, self.summaries, strict=True)
        ]
        widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
        return [
            "  ".join(f"{t:>{w}}" for t, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]

    def _warnings(self) -> Iterator[str]:
        """Each trouble once, with the places where it is and the range of its numbers."""
        found: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        for label, summary in zip(self.labels, self.summaries, strict=True):
            place = ", ".join(f"{name} {value}" for name, value in label.items())
            for text in summary.warnings:
                places, texts = found.setdefault(tuple(_NUMBER.split(text)), ([], []))
                places.append(place)
                texts.append(text)
        for words, (places, texts) in found.items():
            everywhere = len(places) == len(self) > 1
            where = "everywhere" if everywhere else "; ".join(places)
            yield f"warning: {where}: {_ranged(words, texts)}"


def _ranged(words: Sequence[str], texts: Sequence[str]) -> str:
    """Put texts of the same words into one, numbers that differ as a range.

    Examples
    --------
    >>> _ranged(("ESS ", " is below ", "."), ("ESS 80 is below 400.", "ESS 9 is below 400."))
    'ESS 9 to 80 is below 400.'
    """
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    ranges = [
        sorted(set(column), key=lambda number: float(number.rstrip("%"))) for column in columns
    ]
    numbers = [r[0] if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in ranges]
    return "".join(a + b for a, b in zip_longest(words, numbers, fillvalue=""))


def _cells(summary: Summary) -> list[str]:
    all_chains = summary.num_chains + len(summary.diverged)
    of = f" of {all_chains}" if summary.diverged else ""
    return [
        summary.estimate,
        f"{summary.std:.{decimals(summary.sem)}f}",
        f"{summary.rhat:.3f}",
        f"{summary.ess_bulk:.0f}",
        f"{summary.ess_tail:.0f}",
        f"{summary.drift:+.1f}",
        f"{summary.num_chains}{of}",
    ]


def decimals(error: float) -> int:
    """Decimals at which two significant digits of `error` show.

    Examples
    --------
    >>> decimals(0.123), decimals(12.0)
    (2, 0)
    """
    if not (np.isfinite(error) and error > 0):
        return 3
    return int(max(0, 1 - np.floor(np.log10(error))))
