"""The table of scores, in the document between its markers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from bench.accuracy.runs import Run
from bench.accuracy.scores import scores
from bench.accuracy.ways import WAYS
from fastllc.oracles import CLASSES

__all__ = ["grouped", "table", "write"]

START, END = "<!-- table of bench.accuracy -->", "<!-- end of table -->"

HEADER = (
    "| class | way | networks | failed | mean error | median error | bias | where regular "
    "| within 10 % | Kendall | coverage | s | ESS/s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def grouped(runs: Iterable[Run]) -> list[list[Run]]:
    """Return the runs of each class and way together, as both are ordered where they are named."""
    classes, ways = list(CLASSES), list(WAYS)

    def place(run: Run) -> tuple[int, int]:
        return classes.index(run.drawn), ways.index(run.way)

    in_order = sorted(runs, key=lambda run: (*place(run), run.seed))
    return [list(found) for _, found in groupby(in_order, key=place)]


def table(runs: Iterable[Run]) -> str:
    """Return the table in Markdown, a line for each class and way."""
    return "\n".join([HEADER, *(_line(group) for group in grouped(runs))])


def write(path: Path, text: str) -> None:
    """Put `text` between the markers of the document.

    Raises
    ------
    ValueError
        If the document has not one of each marker.
    """
    document = path.read_text()
    if document.count(START) != 1 or document.count(END) != 1:
        raise ValueError(f"{path} must have one line {START!r} and one {END!r}")
    before, rest = document.split(START)
    path.write_text(f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}")


def _line(runs: Sequence[Run]) -> str:
    found = scores(runs)
    cells = [
        runs[0].drawn,
        runs[0].way,
        str(found.networks),
        str(found.failed),
        _percent(found.mean_error),
        _percent(found.median_error),
        _percent(found.bias, "+"),
        f"{_percent(found.regular_error)} of {found.regular}" if found.regular else "",
        _percent(found.within),
        _number(found.kendall, ".2f"),
        _percent(found.coverage),
        _number(found.seconds, ".1f"),
        _number(found.ess_per_second, ".2g"),
    ]
    return f"| {' | '.join(cells)} |"


def _percent(share: float, sign: str = "") -> str:
    return _number(100 * share, f"{sign}.{0 if abs(share) >= 0.1 else 1}f", " %")


def _number(value: float, spec: str, unit: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{spec}}{unit}"
