"""Losses of single samples along chains, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.estimators.traces import usable

__all__ = ["SampleLosses", "open_observables"]

_BLOCK = 2**23  # numbers, 64 MiB in double precision


@dataclass(frozen=True)
class SampleLosses:
    """Losses of the samples of one observable, at the draws of the usable chains of one cell.

    Attributes
    ----------
    loss : xarray.DataArray, dimensions (chain, draw, sample)
        All there is; read block by block.
    chains : ndarray of int
        Those that are used.
    num_draws : int
        Used of each chain.
    """

    loss: xr.DataArray
    chains: NDArray[np.intp]
    num_draws: int

    @property
    def block_size(self) -> int:
        """Draws that fit into a block."""
        return max(1, _BLOCK // self.loss.sizes["sample"])

    def draw_blocks(self, size: int | None = None) -> Iterator[NDArray[np.float64]]:
        """All samples at `size` draws, shape [draw, sample], chain after chain."""
        size = size or self.block_size
        for chain in self.chains:
            for start in range(0, self.num_draws, size):
                part = self.loss[chain, start : min(start + size, self.num_draws)]
                yield part.values.astype(np.float64)

    def sample_blocks(self) -> Iterator[NDArray[np.float64]]:
        """All draws of some samples, shape [chain, draw, sample]."""
        size = max(1, _BLOCK // max(1, self.chains.size * self.num_draws))
        for start in range(0, self.loss.sizes["sample"], size):
            part = self.loss[self.chains, : self.num_draws, start : start + size]
            yield part.values.astype(np.float64)


def open_observables(cell: xr.DataTree, *names: str) -> list[SampleLosses]:
    """Open observables of a cell at the draws that all of them have.

    Parameters
    ----------
    cell : xarray.DataTree
        A trace without leading dimensions.
    *names : str
        Of observables.

    Returns
    -------
    list of SampleLosses
        In the order of `names`, with the same chains and draws.

    Raises
    ------
    ValueError
        If there is no such observable, or they were not taken at the same draws.
    """
    stored = cell["observables"].children if "observables" in cell.children else {}
    for name in names:
        if name not in stored:
            raise ValueError(
                f"observable must be one of {sorted(stored)}, which the trace has, got {name!r}"
            )
    losses = [stored[name].dataset["loss"] for name in names]
    steps = [loss["step"].values for loss in losses]
    if any(not np.array_equal(s, steps[0]) for s in steps):
        raise ValueError(f"observables must be taken at the same draws, got {list(names)}, are not")
    stayed = cell.dataset["diverged_at"].values < 0
    finite = np.logical_and.reduce([_finite(loss) for loss in losses]) & stayed[:, None]
    chains, length = usable(finite)
    return [SampleLosses(loss, chains, length) for loss in losses]


def _finite(loss: xr.DataArray) -> NDArray[np.bool_]:
    """Whether all samples are finite, shape [chain, draw]."""
    return np.stack([np.isfinite(chain.values.sum(axis=1, dtype=np.float64)) for chain in loss])
