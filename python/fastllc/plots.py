"""Pictures of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.diagnostics import decimals, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_trace"]

# Of the palette by Okabe and Ito: they stand apart from viridis for colour-blind readers too.
_REFERENCE = "#D55E00"
_BAND = "#CC79A7"

_MAX_LEGEND = 12


def plot_trace(samples: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the loss along every chain, and the running LLC below it.

    Parameters
    ----------
    samples : xarray.Dataset
        ``LLCEstimator.samples_``.
    ax : matplotlib Axes, optional
        Where to draw the losses alone.

    Returns
    -------
    matplotlib Figure
        Losses are in the units of the loss function, the LLC has none.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plot_trace needs matplotlib: pip install 'fastllc[plots]'", name="matplotlib"
        ) from error
    if ax is not None:
        _draw_losses(ax, samples)
        ax.set_xlabel("sampler step")
        return ax.get_figure(root=True)  # type: ignore[return-value]
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8, 6.5), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    _draw_losses(upper, samples)
    _draw_running_llc(lower, samples)
    lower.set_xlabel("sampler step")
    return figure


def _draw_losses(ax: Axes, samples: xr.Dataset) -> None:
    trace = samples["loss_trace"].values
    diverged_at = samples["diverged_at"].values
    init_loss = float(samples["init_loss"])
    num_chains, num_steps = trace.shape
    window = max(1, num_steps // 50)
    steps = np.arange(num_steps)
    centres = steps[window - 1 :] - (window - 1) / 2
    smooth = np.stack([_moving_mean(losses, window) for losses in trace])
    colors = _colors(num_chains)
    for chain in range(num_chains):
        ax.plot(steps, trace[chain], color=colors[chain], linewidth=0.3, alpha=0.05)
    for chain in range(num_chains):
        name = f"chain {chain}"
        if diverged_at[chain] >= 0:
            name += f", diverged at {diverged_at[chain]}"
            ax.axvline(diverged_at[chain], color=colors[chain], linestyle=":", linewidth=1)
        label = name if num_chains <= _MAX_LEGEND or diverged_at[chain] >= 0 else None
        ax.plot(centres, smooth[chain], color=colors[chain], linewidth=1, label=label)
    mean = smooth[diverged_at < 0].mean(axis=0)
    ax.plot(centres, mean, color="black", linewidth=2, label="all chains")
    ax.axhline(init_loss, color=_REFERENCE, linestyle="--", label="initial loss")
    _shade_burnin(ax, samples)
    # Single minibatches scatter far; the scale is that of the chains' moving means.
    low, high = min(init_loss, np.nanmin(smooth)), max(init_loss, np.nanmax(smooth))
    margin = 0.15 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlim(0, num_steps)
    ax.set_ylabel("minibatch loss\n(units of the loss function)")
    ax.set_title(
        f"Loss along {num_chains} chain{'s' if num_chains > 1 else ''}"
        + (f": every step (faint) and moving mean of {window} steps" if window > 1 else "")
    )
    _legend(ax)


def _draw_running_llc(ax: Axes, samples: xr.Dataset) -> None:
    loss = samples["loss"].values.astype(np.float64)
    num_chains, num_draws = loss.shape
    count = np.arange(1, num_draws + 1)
    mean_loss = np.cumsum(loss, axis=1) / count
    running = samples.attrs["nbeta"] * (mean_loss - float(samples["init_loss"]))
    steps = samples.attrs["num_burnin_steps"] + samples.attrs["num_steps_bw_draws"] * count - 1
    summary = summarize(samples)
    alive = np.flatnonzero(samples["diverged_at"].values < 0)
    colors = _colors(num_chains)
    if np.isfinite(summary.sem):
        low, high = summary.llc - summary.sem, summary.llc + summary.sem
        ax.axhspan(low, high, color=_BAND, alpha=0.4, linewidth=0, label="$\\pm$ standard error")
    for chain in alive:
        ax.plot(steps, running[chain], color=colors[chain], linewidth=1)
    ax.plot(steps, running[alive].mean(axis=0), color="black", linewidth=2, label="all chains")
    _shade_burnin(ax, samples)
    # The first draws scatter widely; what matters is where the means settle.
    settled = running[alive][:, num_draws // 20 :]
    low, high = settled.min(), settled.max()
    margin = 0.1 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    digits = decimals(summary.sem)
    ax.set_title(
        f"Running LLC, in the end {summary.llc:.{digits}f} $\\pm$ {summary.sem:.{digits}f}"
    )
    ax.set_ylabel("local learning coefficient\n(dimensionless)")
    _legend(ax)


def _legend(ax: Axes) -> None:
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _shade_burnin(ax: Axes, samples: xr.Dataset) -> None:
    burnin = samples.attrs["num_burnin_steps"]
    if burnin:
        ax.axvspan(0, burnin, color="0.5", alpha=0.2, linewidth=0, label="burn-in")


def _colors(number: int) -> NDArray[np.floating]:
    from matplotlib import colormaps

    # The yellow end of viridis is too pale for lines on white.
    return np.asarray(colormaps["viridis"](np.linspace(0.0, 0.85, number)))


def _moving_mean(values: NDArray[np.floating], window: int) -> NDArray[np.floating]:
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
