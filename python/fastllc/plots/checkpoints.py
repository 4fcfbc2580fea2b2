"""The LLC over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from fastllc.diagnostics import labels
from fastllc.estimators.coefficient import llc
from fastllc.plots.style import LINES, colors, legend, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_llc_over_checkpoints"]

_Z95 = 1.96


def plot_llc_over_checkpoints(trace: xr.DataTree, ax: Axes | None = None) -> Figure:
    """Draw the LLC over checkpoints with its 95 % interval, a line for each setting.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace with a dimension ``checkpoint``, whose coordinate is the horizontal axis:
        linear if it is a number, else in the order it has.
    ax : matplotlib Axes, optional
        Where to draw. None makes a figure.

    Returns
    -------
    matplotlib Figure
        The LLC has no unit. A cross marks a checkpoint of which no chain is left.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no dimension ``checkpoint``.
    """
    plt = pyplot("plot_llc_over_checkpoints")
    if "checkpoint" not in trace.sizes:
        raise ValueError("trace must have a dimension checkpoint, got one checkpoint alone")
    if ax is None:
        ax = plt.figure(figsize=(8, 4.5), layout="constrained").add_subplot()
    names = trace.dataset["checkpoint"].values
    numeric = np.issubdtype(names.dtype, np.number)
    x = names if numeric else np.arange(len(names))
    found = llc(trace)
    places = (
        [{"setting": i} for i in range(trace.sizes["setting"])] if "setting" in found.dims else [{}]
    )
    palette = LINES if len(places) <= len(LINES) else colors(len(places))
    for place, color in zip(places, palette, strict=False):
        value, sem = (found[name].isel(place).values for name in ("llc", "sem"))
        label = ", ".join(f"{name} {text}" for name, text in labels(trace, place).items()) or None
        ax.fill_between(x, value - _Z95 * sem, value + _Z95 * sem, color=color, alpha=0.2, lw=0)
        ax.plot(x, value, "o-", color=color, markersize=3.5, linewidth=1.3, label=label)
        lost = x[np.isnan(value)]
        if lost.size:
            ax.plot(
                lost,
                np.full(lost.shape, 0.02),
                "x",
                color=color,
                transform=ax.get_xaxis_transform(),
                label=f"{label}: no chain left" if label else "no chain left",
            )
    if not numeric:
        ax.set_xticks(x, [str(name) for name in names], rotation=30, ha="right")
    ax.set_xlabel("checkpoint")
    ax.set_ylabel("local learning coefficient\n(dimensionless)")
    ax.set_title("LLC over checkpoints, with 95 % intervals")
    if ax.get_legend_handles_labels()[1]:
        legend(ax)
    figure: Figure = ax.get_figure(root=True)  # type: ignore[assignment]
    return figure
