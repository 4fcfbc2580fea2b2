"""The LLC over a grid of step sizes and localizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.diagnostics import Summaries, summarize
from fastllc.plots.style import pyplot, refuse_dimensions
from fastllc.summaries import Summary, decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["plot_grid"]


def plot_grid(trace: xr.DataTree, ax: Axes | None = None) -> Figure:
    """Draw a map of the LLC over ``lr`` and ``localization``, values written into the cells.

    Cells that `summarize` warns about are hatched; the colours span the values of the others, and
    of all if there are no others, on a logarithmic scale where they differ a hundredfold. Where no
    chain is left the cell says so.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace with a dimension ``setting`` and no checkpoints.
    ax : matplotlib Axes, optional
        Where to draw. None makes a figure.

    Returns
    -------
    matplotlib Figure
        Values are the LLC and its standard error, which have no unit.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there are several checkpoints, or no settings, or several of one lr and localization.
    """
    plt = pyplot("plot_grid")
    refuse_dimensions(trace, "checkpoint")
    if "setting" not in trace.sizes:
        raise ValueError("trace must have a dimension setting, got a single setting")
    summaries = summarize(trace)
    assert isinstance(summaries, Summaries)  # there is a dimension
    lr, column = _axis(trace, "lr")
    localization, row = _axis(trace, "localization")
    shape = len(localization), len(lr)
    if len(set(zip(row, column, strict=True))) < len(summaries):
        raise ValueError(
            "trace must have one setting for each lr and localization, got several: select those "
            "of one nbeta, as in trace.isel(setting=[0])"
        )
    if ax is None:
        size = (max(5.0, 2.6 + 0.95 * shape[1]), 1.9 + 0.6 * shape[0])
        ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    values = np.full(shape, np.nan)
    values[row, column] = [s.llc for s in summaries]
    low, high = _limits(summaries)
    image = ax.imshow(
        np.clip(values, low, high),
        origin="lower",
        aspect="auto",
        norm="log" if 0 < 100 * low < high else "linear",
        vmin=low,
        vmax=high,
    )
    for y, x, summary in zip(row, column, summaries, strict=True):
        _write(ax, x, y, summary, image)
    ax.set_xticks(range(shape[1]), _texts(lr))
    ax.set_yticks(range(shape[0]), _texts(localization))
    ax.set_xlabel("lr")
    ax.set_ylabel("localization")
    note = "\nhatched: the summary warns" if any(s.warnings for s in summaries) else ""
    ax.set_title(f"LLC $\\pm$ standard error{note}", fontsize="medium")
    figure: Figure = ax.get_figure(root=True)  # type: ignore[assignment]
    figure.colorbar(image, ax=ax, extend=_beyond(values, low, high), label="LLC (dimensionless)")
    return figure


def _axis(trace: xr.DataTree, name: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Values of a setting in order, and where each setting lies among them."""
    every = np.broadcast_to(trace.dataset.coords[name].values, trace.sizes["setting"])
    values, where = np.unique(every, return_inverse=True)
    return values, where


def _texts(values: NDArray[np.float64]) -> list[str]:
    """Write three digits of each, without an exponent if that is short."""
    return [f"{float(f'{value:.3g}'):g}" for value in values]


def _limits(summaries: Summaries) -> tuple[float, float]:
    sound = [s.llc for s in summaries if not s.warnings]
    shown = sound or [s.llc for s in summaries if s.num_chains] or [0.0]
    low, high = min(shown), max(shown)
    return (low, high) if low < high else (low - 1, high + 1)


def _beyond(values: NDArray[np.float64], low: float, high: float) -> str:
    """Name the ends of the scale that values lie beyond, in matplotlib's words."""
    ends = bool((values < low).any()), bool((values > high).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(ends, "both")


def _write(ax: Axes, x: int, y: int, summary: Summary, image: AxesImage) -> None:
    from matplotlib.patches import Rectangle

    if not summary.num_chains:
        ax.text(x, y, "no chain\nleft", ha="center", va="center", fontsize="small")
        return
    fill = image.cmap(image.norm(np.clip(summary.llc, *image.get_clim())))
    dark = float(np.dot(fill[:3], (0.3, 0.59, 0.11))) < 0.5  # as bright as it looks
    color = "white" if dark else "black"
    if summary.warnings:
        hatched = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec=color, hatch="//", alpha=0.4)
        ax.add_patch(hatched)
    digits = decimals(summary.sem)
    ax.text(
        x,
        y,
        f"{summary.llc:.{digits}f}\n$\\pm${summary.sem:.{digits}f}",
        ha="center",
        va="center",
        fontsize="small",
        color=color,
        bbox={"facecolor": fill, "edgecolor": "none", "pad": 1},
    )
