"""Chain by chain: estimates, agreement with themselves, and what each is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.convergence import ess, rhat, standard_error
from fastllc.diagnostics import MAX_RHAT, MIN_ESS
from fastllc.estimators.coefficient import llc
from fastllc.estimators.traces import draws, usable
from fastllc.plots.style import (
    BLUE,
    PURPLE,
    VERMILLION,
    estimate,
    legend,
    pyplot,
    refuse_dimensions,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_chain_health"]

_Z95 = 1.96
_FAR = 4.0
_MAX_NAMED = 8


def plot_chain_health(trace: xr.DataTree) -> Figure:
    """Draw, for each chain, its LLC with a 95 % interval, its split R-hat and its ESS.

    R-hat compares the two halves of a chain; the ESS is drawn with the share of 400 that falls to
    each chain. Chains whose LLC is more than four of their standard errors from that of all are
    named, diverged ones marked. A chain's own error knows nothing of minibatches shared with
    others.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace of one checkpoint and setting, with any number of chains.

    Returns
    -------
    matplotlib Figure
        None of the three has a unit.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there are several checkpoints or settings.
    """
    plt = pyplot("plot_chain_health")
    refuse_dimensions(trace, "checkpoint", "setting")
    above = draws(trace).values
    chains, length = usable(np.isfinite(above))
    used = above[chains, :length]
    found = llc(trace)
    figure: Figure
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(8, 7), sharex=True, layout="constrained", height_ratios=(3, 1.5, 1.5)
    )
    _draw_estimates(top, used, chains, found)
    size = _marker_size(len(above))
    middle.plot(chains, [rhat(chain[None]) for chain in used], "o", color=BLUE, markersize=size)
    middle.axhline(MAX_RHAT, color=VERMILLION, linestyle="--", label=f"at most {MAX_RHAT}")
    middle.set_ylabel("split R-hat")
    bottom.plot(chains, [ess(chain[None]) for chain in used], "o", color=BLUE, markersize=size)
    share = MIN_ESS / max(1, chains.size)
    bottom.axhline(share, color=VERMILLION, linestyle="--", label=f"at least {share:.3g}")
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel("bulk ESS")
    bottom.set_xlabel("chain")
    diverged = np.flatnonzero(trace.dataset["diverged_at"].values >= 0)
    _mark_diverged(top, diverged)
    for ax in (top, middle, bottom):
        legend(ax)
    top.set_xlim(-0.5, len(above) - 0.5)
    bottom.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_estimates(
    ax: Axes, used: NDArray[np.float64], chains: NDArray[np.intp], found: xr.Dataset
) -> None:
    value, sem = float(found["llc"]), float(found["sem"])
    ax.set_title(f"LLC {estimate(found)} from {chains.size} of {found.sizes['chain']} chains")
    ax.set_ylabel("local learning coefficient")
    if not chains.size:
        return
    each = found["llc_chains"].values[chains]
    error = float(found["nbeta"]) * np.array([standard_error(chain[None]) for chain in used])
    small = _marker_size(found.sizes["chain"])
    far = abs(each - value) > _FAR * error
    groups = (~far, BLUE, small, "each, 95 %"), (far, VERMILLION, max(5, small), "far from all")
    for chosen, color, size, label in groups:
        if chosen.any():
            bars = _Z95 * error[chosen]
            ax.errorbar(
                chains[chosen],
                each[chosen],
                bars,
                fmt="o",
                color=color,
                markersize=size,
                elinewidth=size / 5,
                label=label,
            )
    low, high = value - _Z95 * sem, value + _Z95 * sem
    ax.axhspan(low, high, color=PURPLE, alpha=0.5, lw=0, label="all, 95 %")
    ax.axhline(value, color="black", linewidth=1, zorder=3)
    if far.sum() <= _MAX_NAMED:
        for x, y in zip(chains[far], each[far], strict=True):
            ax.annotate(str(x), (x, y), (5, 0), textcoords="offset points", fontsize="small")


def _mark_diverged(ax: Axes, diverged: NDArray[np.intp]) -> None:
    if diverged.size:
        ax.plot(
            diverged,
            np.full(diverged.shape, 0.04),
            "x",
            color=VERMILLION,
            transform=ax.get_xaxis_transform(),
            label=f"diverged: {diverged.size}",
        )


def _marker_size(num_chains: int) -> float:
    """Smaller for more chains, down to what can still be seen."""
    return float(np.clip(40 / np.sqrt(num_chains), 1.5, 6))
