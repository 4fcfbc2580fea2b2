"""The scatter of estimates against the exact coefficients, a panel for each way."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.accuracy.runs import Run
from bench.accuracy.table import grouped
from bench.accuracy.ways import WAYS
from fastllc.oracles import CLASSES
from fastllc.plots.style import LINES, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

COLUMNS = 5


def draw(runs: Iterable[Run], path: Path) -> None:
    """Draw estimates and their intervals against truths, and the line on which they should be."""
    plt = pyplot("bench.accuracy")
    ways = list(WAYS)
    groups = sorted(grouped(runs), key=lambda group: ways.index(group[0].way))
    panels = [(way, list(found)) for way, found in groupby(groups, lambda group: group[0].way)]
    rows = -(-len(panels) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(13, 2.9 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    truths = [run.truth for group in groups for run in group]
    ends = min(truths) / 1.5, max(truths) * 1.5
    shown = {}
    for ax, (way, found) in zip(grid.flat, panels, strict=False):
        ax.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
        for group in found:
            shown[group[0].drawn] = _scatter(ax, group)
        ax.set(xscale="log", yscale="log", title=way, aspect="equal")
        ax.title.set_fontsize("medium")
    for ax in grid.flat[max(0, len(panels) - COLUMNS) : len(panels)]:
        ax.tick_params(labelbottom=True)
    figure.supxlabel(r"exact $\lambda$ (of ranks as published, hollow: a lower bound)")
    figure.supylabel(r"estimate $\hat\lambda$ and its 95 % interval")
    figure.legend(
        [shown[name] for name in CLASSES if name in shown],
        [name for name in CLASSES if name in shown],
        loc="outside right upper", title="class", frameon=False,
    )  # fmt: skip
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _scatter(ax: Axes, runs: list[Run]) -> object:
    """Draw one class; return what stands for it in the legend."""
    color = LINES[list(CLASSES).index(runs[0].drawn)]
    fine = [run for run in runs if run.estimate.llc > 0]
    x, found = np.array([(run.truth, run.estimate.llc) for run in fine]).reshape(-1, 2).T
    ends = np.array([(run.estimate.low, run.estimate.high) for run in fine]).reshape(-1, 2).T
    ax.errorbar(x, found, np.abs(ends - found), fmt="none", ecolor=color, elinewidth=0.8)
    faces = [color if run.attained else "white" for run in fine]
    ax.scatter(x, found, s=16, c=faces, edgecolors=color, linewidths=0.8, zorder=3)
    return ax.scatter([], [], s=16, color=color)
