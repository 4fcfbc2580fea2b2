"""How the losses of samples vary together over the posterior."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.estimators.observables import SampleLosses, open_observables
from fastllc.estimators.traces import over_cells

__all__ = ["loss_correlation", "loss_covariance"]


def loss_covariance(trace: xr.DataTree, observable: str, other: str | None = None) -> xr.DataArray:
    r"""Covariance between the losses of samples.

    .. math:: C_{ij} = \operatorname{Cov}_w[\ell_i(w), \ell_j(w)]

    over the draws of all usable chains together (ddof 1). The influence of sample i on the loss of
    sample j, to first order in the weight of i, is :math:`-C_{ij}` times the inverse temperature of
    one sample, ``nbeta`` / n.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.
    observable : str
        Its samples are the rows.
    other : str, optional
        Its samples, taken at the same draws, are the columns. None means those of `observable`.

    Returns
    -------
    xarray.DataArray, dimensions (checkpoint?, setting?, sample, other_sample)
        Double precision, in squared units of the loss. NaN where no two draws are left.

    Raises
    ------
    ValueError
        If there is no such observable, or the two were not taken at the same draws.

    References
    ----------
    Kreer et al. 2025, "Bayesian Influence Functions for Hessian-Free Data Attribution",
    arXiv 2509.26544.
    """
    return _matrix(trace, observable, other, correlation=False)


def loss_correlation(trace: xr.DataTree, observable: str, other: str | None = None) -> xr.DataArray:
    r"""Correlation between the losses of samples.

    .. math:: R_{ij} = \operatorname{Cov}_w[\ell_i, \ell_j] \,/
              \sqrt{\operatorname{Var}_w[\ell_i] \operatorname{Var}_w[\ell_j]}

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.
    observable : str
        Its samples are the rows.
    other : str, optional
        Its samples, taken at the same draws, are the columns. None means those of `observable`.

    Returns
    -------
    xarray.DataArray, dimensions (checkpoint?, setting?, sample, other_sample)
        Double precision, between -1 and 1. NaN for a sample whose loss does not vary, and where no
        two draws are left.

    Raises
    ------
    ValueError
        If there is no such observable, or the two were not taken at the same draws.

    References
    ----------
    "The Loss Kernel", 2025, arXiv 2509.26537.
    """
    return _matrix(trace, observable, other, correlation=True)


def _matrix(
    trace: xr.DataTree, observable: str, other: str | None, *, correlation: bool
) -> xr.DataArray:
    names = (observable,) if other is None else (observable, other)

    def of_cell(cell: xr.DataTree) -> dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]:
        opened = open_observables(cell, *names)
        matrix = _covariance(opened[0], opened[-1], correlation=correlation)
        return {"loss": (("sample", "other_sample"), matrix)}

    name = "loss_correlation" if correlation else "loss_covariance"
    return over_cells(trace, of_cell)["loss"].rename(name)


def _covariance(
    rows: SampleLosses, columns: SampleLosses, *, correlation: bool
) -> NDArray[np.float64]:
    shape = rows.loss.sizes["sample"], columns.loss.sizes["sample"]
    num_draws = rows.chains.size * rows.num_draws
    if num_draws < 2:
        return np.full(shape, np.nan)
    matrix, squares = np.zeros(shape), [np.zeros(size) for size in shape]
    row_mean = _mean(rows, num_draws)
    column_mean = row_mean if columns is rows else _mean(columns, num_draws)
    for row_block, column_block in _blocks(rows, columns):
        x = row_block - row_mean
        y = x if column_block is row_block else column_block - column_mean
        matrix += x.T @ y
        squares[0] += (x**2).sum(axis=0)
        squares[1] += (y**2).sum(axis=0)
    if not correlation:
        return matrix / (num_draws - 1)
    with np.errstate(invalid="ignore"):
        matrix /= np.sqrt(squares[0])[:, None]
        matrix /= np.sqrt(squares[1])
    return np.clip(matrix, -1, 1, out=matrix)


def _blocks(
    rows: SampleLosses, columns: SampleLosses
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Go through both at the same draws, reading one that is both once."""
    if columns is rows:
        return ((block, block) for block in rows.draw_blocks())
    size = min(rows.block_size, columns.block_size)
    return zip(rows.draw_blocks(size), columns.draw_blocks(size), strict=True)


def _mean(losses: SampleLosses, num_draws: int) -> NDArray[np.float64]:
    total = np.zeros(losses.loss.sizes["sample"])
    for block in losses.draw_blocks():
        total += block.sum(axis=0)
    return total / num_draws
