"""The loss along chains, and the running LLC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.diagnostics import labels
from fastllc.estimators.coefficient import llc
from fastllc.estimators.traces import cells, draws, excess_loss, usable
from fastllc.plots.style import PURPLE, VERMILLION, colors, estimate, legend, pyplot

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_trace"]

_MAX_PANELS = 9
_MAX_NAMED = 12
_MAX_LINES = 30
_MAX_POINTS = 1000


def plot_trace(trace: xr.DataTree, ax: Axes | None = None) -> Figure:
    """Draw the loss along the chains, and below it the running LLC.

    Up to 30 chains have a line each, more are drawn as the bands that hold the middle half and the
    middle 90 % of them. Diverged chains are marked where they ended. Of several checkpoints or
    settings, up to nine, the losses alone are drawn, in a panel each.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.
    ax : matplotlib Axes, optional
        Where to draw the losses of a single checkpoint and setting alone.

    Returns
    -------
    matplotlib Figure
        Losses, above those at w*, are in the units of the loss function; the LLC has none.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there are too many checkpoints and settings.
    """
    plt = pyplot("plot_trace")
    places = list(cells(trace))
    most = _MAX_PANELS if ax is None else 1
    if len(places) > most:
        sizes = " and ".join(f"{trace.sizes[dim]} {dim}s" for dim in places[0])
        chosen = ", ".join(f"{dim}=[0]" for dim in places[0])
        raise ValueError(
            f"trace must be of at most {most} checkpoints x settings, got {sizes}: select some, "
            f"as in trace.isel({chosen})"
        )
    if ax is not None:
        _draw_losses(ax, trace.isel(places[0]))
        ax.set_xlabel("sampler step")
        legend(ax)
        figure: Figure = ax.get_figure(root=True)  # type: ignore[assignment]
    elif len(places) == 1:
        cell = trace.isel(places[0])
        figure, (upper, lower) = plt.subplots(
            2, 1, figsize=(8, 6.5), sharex=True, layout="constrained", height_ratios=(3, 2)
        )
        _draw_losses(upper, cell)
        legend(upper)
        _draw_running_llc(lower, cell)
        lower.set_xlabel("sampler step")
    else:
        figure = _panels(trace, places)
    return figure


def _panels(trace: xr.DataTree, places: list[dict[str, int]]) -> Figure:
    columns = min(3, len(places))
    rows = -(-len(places) // columns)
    figure: Figure = pyplot("plot_trace").figure(
        figsize=(1 + 3.2 * columns, 0.8 + 2.4 * rows), layout="constrained"
    )
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(len(places))]
    for ax, place in zip(axes, places, strict=True):
        cell = trace.isel(place)
        _draw_losses(ax, cell)
        name = ", ".join(f"{name} {value}" for name, value in labels(trace, place).items())
        ax.set_title(f"{name}\nLLC {estimate(llc(cell))}", fontsize="medium")
        ax.set_ylabel("")
    figure.supxlabel("sampler step", fontsize="medium")
    figure.supylabel("minibatch loss above that at w*", fontsize="medium")
    seen: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if not label.startswith("chain "):
                seen.setdefault(label, handle)
    figure.legend(
        list(seen.values()), list(seen), loc="outside upper center", ncols=4, frameon=False
    )
    return figure


def _draw_losses(ax: Axes, cell: xr.DataTree) -> None:
    excess = excess_loss(cell).values
    diverged_at = cell.dataset["diverged_at"].values
    num_chains, num_steps = excess.shape
    window = max(1, num_steps // 50)
    shown = slice(None, None, max(1, num_steps // _MAX_POINTS))
    smooth = _moving_mean(excess, window)[:, shown]
    centres = (np.arange(num_steps - window + 1) + (window - 1) / 2)[shown]
    diverged = int((diverged_at >= 0).sum())
    faint = num_chains <= _MAX_LINES
    if faint:
        for line, color in zip(excess, colors(num_chains), strict=True):
            ax.plot(line, color=color, linewidth=0.3, alpha=0.05, rasterized=True)
    _draw_chains(ax, centres, smooth, np.arange(num_chains), diverged_at)
    chains, _ = usable(np.isfinite(excess) & (diverged_at < 0)[:, None])
    alive = smooth[chains]
    if chains.size:
        ax.plot(centres, alive.mean(axis=0), color="black", linewidth=2, label="all chains")
    ax.axhline(0, color=VERMILLION, linestyle="--", label="loss at w*")
    _shade_burnin(ax, cell)
    _mark_diverged(ax, diverged_at)
    # Single minibatches scatter far, and diverging chains farther: the scale is that of the others'
    # moving means.
    scale = alive if np.isfinite(alive).any() else smooth
    if np.isfinite(scale).any():
        low, high = min(0.0, np.nanmin(scale)), max(0.0, np.nanmax(scale))
        margin = 0.15 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
    ax.set_xlim(0, num_steps)
    ax.set_ylabel("minibatch loss above that at w*\n(units of the loss function)")
    lost = f", {diverged} diverged" if diverged else ""
    single = "every step (faint) and " if faint else ""
    how = f"\n{single}moving mean of {window} steps" if window > 1 else ""
    ax.set_title(f"Loss along {num_chains} chain{'s' if num_chains > 1 else ''}{lost}{how}")


def _draw_running_llc(ax: Axes, cell: xr.DataTree) -> None:
    above = draws(cell)
    chains, length = usable(np.isfinite(above.values))
    _shade_burnin(ax, cell)
    ax.set_ylabel("local learning coefficient\n(dimensionless)")
    if not chains.size:
        ax.set_title("Running LLC: no chain is left")
        return
    used = above.values[chains, :length]
    running = float(cell.dataset["nbeta"]) * np.cumsum(used, axis=1) / np.arange(1, length + 1)
    steps = above["step"].values[:length]
    found = llc(cell)
    value, sem = float(found["llc"]), float(found["sem"])
    if np.isfinite(sem):
        low, high = value - sem, value + sem
        ax.axhspan(low, high, color=PURPLE, alpha=0.4, linewidth=0, label="$\\pm$ standard error")
    shown = slice(None, None, max(1, length // _MAX_POINTS))
    _draw_chains(ax, steps[shown], running[:, shown], chains, cell.dataset["diverged_at"].values)
    ax.plot(steps, running.mean(axis=0), color="black", linewidth=2, label="all chains")
    # The first draws scatter widely; what matters is where the means settle.
    settled = running[:, length // 20 :]
    if chains.size > _MAX_LINES:
        settled = np.quantile(settled, (0.05, 0.95), axis=0)
    low, high = settled.min(), settled.max()
    margin = 0.1 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.set_title(f"Running LLC, in the end {estimate(found)}")
    legend(ax)


def _draw_chains(
    ax: Axes,
    x: NDArray[np.floating],
    lines: NDArray[np.floating],
    chains: NDArray[np.intp],
    diverged_at: NDArray[np.int64],
) -> None:
    """Draw each chain in its colour or, of many, the bands that hold them."""
    if len(lines) > _MAX_LINES:
        there = np.isfinite(lines).any(axis=0)
        x, bands = x[there], np.nanquantile(lines[:, there], (0.05, 0.25, 0.75, 0.95), axis=0)
        color = colors(3)[1]
        ax.fill_between(
            x, bands[0], bands[3], color=color, alpha=0.25, lw=0, label="90 % of chains"
        )
        ax.fill_between(x, bands[1], bands[2], color=color, alpha=0.5, lw=0, label="50 % of chains")
        return
    palette = colors(len(diverged_at))
    for chain, line in zip(chains, lines, strict=True):
        end = f", diverged at {diverged_at[chain]}" if diverged_at[chain] >= 0 else ""
        label = f"chain {chain}{end}" if len(lines) <= _MAX_NAMED else None
        ax.plot(x, line, color=palette[chain], linewidth=1, label=label)


def _mark_diverged(ax: Axes, diverged_at: NDArray[np.int64]) -> None:
    steps = diverged_at[diverged_at >= 0]
    if not steps.size:
        return
    ax.plot(
        steps,
        np.full(steps.shape, 0.97),
        "x",
        color=VERMILLION,
        markersize=8,
        markeredgewidth=2,
        transform=ax.get_xaxis_transform(),
        label="diverged",
        zorder=5,
    )
    if steps.size <= _MAX_NAMED:
        for step in steps:
            ax.axvline(step, color=VERMILLION, linestyle=":", linewidth=1)


def _shade_burnin(ax: Axes, cell: xr.DataTree) -> None:
    burnin = cell.attrs["num_burnin_steps"]
    if burnin:
        ax.axvspan(0, burnin, color="0.5", alpha=0.2, linewidth=0, label="burn-in")


def _moving_mean(values: NDArray[np.floating], window: int) -> NDArray[np.floating]:
    total = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    return np.asarray(total[:, window:] - total[:, :-window]) / window
