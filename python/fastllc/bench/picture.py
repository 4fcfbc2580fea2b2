"""The picture of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastllc.bench.comparison import DEVINTERP, FLOOR, LOOP, OURS, OURS_COMPILED, Comparison
from fastllc.bench.table import duration, multiple
from fastllc.plots.style import LINES, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

FASTEST = "fastest pure PyTorch"
_BARS = {
    OURS_COMPILED: LINES[2],
    FASTEST: LINES[0],
    LOOP: LINES[4],
    DEVINTERP: LINES[1],
    FLOOR: "0.6",
}


def draw(found: Sequence[Comparison], devinterp: str = "") -> Figure:
    """Draw the others' times as multiples of ours, with quartiles, a group of bars for each case.

    Parameters
    ----------
    found : sequence of Comparison
        What was measured.
    devinterp : str
        The version of devinterp, or nothing.

    Returns
    -------
    matplotlib Figure
        Bars to the right of the line at 1 are slower than fastllc. Behind compiled ones what
        compiling took.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    plt = pyplot("bench --plot")
    figure: Figure
    drawn = [[(bar, name) for bar, name in _names(each) if name in each.seconds] for each in found]
    height = 1.8 + 0.27 * sum(map(len, drawn)) + 0.2 * len(found)
    figure, ax = plt.subplots(figsize=(9, height), layout="constrained")
    y, ticks = 0.0, []
    for each, bars in zip(found, drawn, strict=True):
        ticks.append(y + (len(bars) - 1) / 2)
        for bar, name in bars:
            low, median, high = each.ratio(name)
            ax.barh(y, median - 1, 0.85, left=1, color=_BARS[bar])
            ax.plot([low, high], [y, y], color="black", linewidth=1)
            which = f" {name.removeprefix('torch').lstrip(' .')}" if bar == FASTEST else ""
            if name in each.compile_seconds:
                which += f" + {each.compile_seconds[name]:.1f} s"
            ax.annotate(
                f"{multiple(median)}{which}",
                (max(1, median, high), y),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
            y += 1
        y += 0.8
    ax.set_xscale("log")
    ax.axvline(1, color="black", linewidth=1)
    ax.margins(x=0.12, y=0.02)
    ax.invert_yaxis()
    ax.set_yticks(ticks, [_label(each) for each in found])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("time as a multiple of fastllc's (1: as fast; more: slower)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    used = {bar for bars in drawn for bar, _ in bars}
    for bar, color in _BARS.items():
        if bar in used:
            label = f"devinterp {devinterp}".rstrip() if bar == DEVINTERP else bar
            ax.barh(np.nan, np.nan, color=color, label=label)
    figure.legend(loc="outside upper center", ncols=min(len(used), 3), frameon=False)
    return figure


def _names(each: Comparison) -> list[tuple[str, str]]:
    return [(bar, each.fastest if bar == FASTEST else bar) for bar in _BARS]


def _label(each: Comparison) -> str:
    first, _, rest = each.case.partition(": " if ": " in each.case else ", ")
    return f"{each.kind}, {first}\n{rest}\nfastllc {duration(float(np.median(each.seconds[OURS])))}"
