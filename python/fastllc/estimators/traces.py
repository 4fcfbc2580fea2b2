"""What a finished trace holds, cell by cell: draws of the loss, and the chains to rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = [
    "LEADING",
    "Values",
    "cells",
    "draws",
    "excess_loss",
    "num_samples",
    "over_cells",
    "shared",
    "usable",
]

LEADING = ("checkpoint", "setting")
"""Dimensions that a trace has only if several were asked for. A cell is one place in them."""

Values = Mapping[str, tuple[tuple[str, ...], NDArray[np.number[Any]]]]
"""Results by name: dimensions and values."""


def draws(trace: xr.DataTree) -> xr.DataArray:
    r"""How far the loss is above that at :math:`w^*`, at every draw.

    :math:`L_b(w) - L_b(w^*)`, both on the minibatch b of that step, if the trace has paired initial
    losses: what b does to both cancels. Else :math:`L_b(w) - L_n(w^*)`. The mean is the same.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.

    Returns
    -------
    xarray.DataArray, dimensions (checkpoint?, setting?, chain, draw)
        In the units of the loss. NaN for all of a diverged chain, and where a run was interrupted.
        The coordinate ``step`` tells the step of each draw.

    References
    ----------
    Baker et al. 2019, "Control variates for stochastic gradient MCMC", Statistics and Computing 29.
    """
    every = int(trace.attrs["num_steps_bw_draws"])
    first = int(trace.attrs["num_burnin_steps"]) + every - 1
    excess = excess_loss(trace, slice(first, None, every)).rename(step="draw")
    excess = excess.drop_vars("draw", errors="ignore").where(trace["diverged_at"] < 0)
    return excess.assign_coords(step=("draw", first + every * np.arange(excess.sizes["draw"])))


def excess_loss(trace: xr.DataTree, steps: slice = slice(None)) -> xr.DataArray:
    """Loss above that at w*, as `draws` has it, at the chosen `steps` of all chains."""
    losses = trace["steps"].to_dataset().isel(step=steps)
    base = losses["baseline"] if "baseline" in losses else trace["init_loss"]
    return losses["loss"].astype(np.float64) - base


def usable(finite: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Chains to use, and how many draws of each.

    Parameters
    ----------
    finite : ndarray of bool, shape [chain, draw]
        Where there is something. A chain ends before its first gap.

    Returns
    -------
    chains : ndarray of int
        Those at least half as long as the longest.
    length : int
        The draws that all of them have; 0 if there is no chain.

    Examples
    --------
    >>> usable(np.arange(10) < np.array([[10], [4], [7], [0]]))
    (array([0, 2]), 7)
    """
    lengths = np.logical_and.accumulate(finite, axis=1).sum(axis=1)
    chains = np.flatnonzero((lengths > 0) & (2 * lengths >= lengths.max(initial=0)))
    return chains, int(lengths[chains].min()) if chains.size else 0


def shared(trace: xr.DataTree) -> bool:
    """Whether the chains of `trace` share minibatches."""
    return bool(trace.attrs["shared_batches"])


def num_samples(trace: xr.DataTree) -> int:
    """Tell how many samples are in the training data; a ValueError where the data could not."""
    number = trace.attrs["num_samples"]
    if not isinstance(number, Integral) or number < 2:
        raise ValueError(f"num_samples of the trace must be an int >= 2, got {number!r}")
    return int(number)


def cells(trace: xr.DataTree) -> Iterator[dict[str, int]]:
    """Positions of the cells of `trace`, for ``trace.isel``; one, empty, if it is a single cell."""
    sizes = _sizes(trace)
    for index in np.ndindex(*sizes.values()):
        yield dict(zip(sizes, index, strict=True))


def over_cells(trace: xr.DataTree, estimate: Callable[[xr.DataTree], Values]) -> xr.Dataset:
    """Call `estimate` on every cell of `trace`.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.
    estimate : callable
        Takes a trace without leading dimensions.

    Returns
    -------
    xarray.Dataset
        The results over (checkpoint?, setting?), with the coordinates of the trace.
    """
    sizes = _sizes(trace)
    found = [estimate(trace.isel(cell)) for cell in cells(trace)]
    results = {
        name: (
            (*sizes, *dims),
            np.stack([f[name][1] for f in found]).reshape((*sizes.values(), *values.shape)),
        )
        for name, (dims, values) in found[0].items()
    }
    used = {dim for dims, _ in results.values() for dim in dims}
    coords = {name: c.variable for name, c in trace.coords.items() if set(c.dims) <= used}
    return xr.Dataset(results, coords)


def _sizes(trace: xr.DataTree) -> dict[str, int]:
    return {dim: trace.sizes[dim] for dim in LEADING if dim in trace.sizes}
