"""The LLC as steps become infinitely small, from runs at several step sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.estimators.coefficient import llc

__all__ = ["extrapolate_lr", "extrapolated"]

Fit = Callable[[xr.Dataset, NDArray[np.float64]], xr.Dataset]


def extrapolate_lr(trace: xr.DataTree) -> xr.Dataset:
    r"""Local learning coefficient without the bias of the step size, to first order.

    .. math:: \hat\lambda(\epsilon) = \hat\lambda(0) + c\,\epsilon,

    fitted by least squares, weighted by the standard errors, to the estimates at all step sizes of
    one `nbeta` and `localization`. With two step sizes it is the line through both,
    :math:`(\epsilon_2 \hat\lambda_1 - \epsilon_1 \hat\lambda_2) / (\epsilon_2 - \epsilon_1)`.
    What is left is of second order; the standard error is larger than that of either, about twice
    for steps :math:`\epsilon` and :math:`2\epsilon`. A heat of minibatches in proportion to
    :math:`\epsilon` goes with it.

    Parameters
    ----------
    trace : xarray.DataTree
        Of a run with a list of at least two `lr`.

    Returns
    -------
    xarray.Dataset, dimensions (checkpoint?, setting?)
        ``llc`` and its Monte-Carlo standard error ``sem``, dimensionless, with the coordinates
        ``nbeta`` and ``localization``; the dimension setting only if there are several of them.

    Raises
    ------
    ValueError
        If there is a single step size, or some `nbeta` and `localization` have one alone.

    References
    ----------
    Durmus, Simsekli, Moulines, Badeau & Richard 2016, "Stochastic gradient Richardson-Romberg
    Markov chain Monte Carlo", NeurIPS.

    Examples
    --------
    >>> import fastllc
    >>> from fastllc import oracles
    >>> oracle = oracles.quadratic([1.0] * 50, n_samples=10)
    >>> trace = fastllc.sample(
    ...     oracle.model,
    ...     oracle.data,
    ...     oracle.loss_fn,
    ...     lr=[2e-3, 4e-3],
    ...     nbeta=100.0,
    ...     localization=1.0,
    ...     num_burnin_steps=200,
    ...     num_draws=2000,
    ...     seed=0,
    ...     progress=False,
    ... )
    >>> [round(exact, 1) for exact in (oracle.exact(100.0, 1.0), oracle.exact(100.0, 1.0, lr=2e-3))]
    [24.8, 26.1]
    >>> found = extrapolate_lr(trace)
    >>> bool(abs(found["llc"] - 24.8) < 4 * found["sem"])
    True
    """
    return extrapolated(trace, "lr", 2, _line)


def extrapolated(trace: xr.DataTree, along: str, least: int, fit: Fit) -> xr.Dataset:
    """Fit the LLC along one setting, for each pair of the other two.

    Parameters
    ----------
    trace : xarray.DataTree
        Of several settings.
    along : "lr" or "nbeta"
        What the estimates are fitted along.
    least : int
        How many different values of it a fit needs.
    fit : callable
        From estimates with the dimension setting and the values of `along` to a dataset without it.

    Raises
    ------
    ValueError
        If there are too few values somewhere.
    """
    fixed = tuple(name for name in ("lr", "nbeta", "localization") if name != along)
    if "setting" not in trace.sizes:
        raise ValueError(f"trace must have at least {least} {along}, got one")
    found = llc(trace)
    # Where a coordinate does not vary it is a single number.
    values, *at = (
        np.broadcast_to(np.asarray(found.coords[name].values), found.sizes["setting"])
        for name in (along, *fixed)
    )
    fits = []
    for pair in sorted(set(zip(*(each.tolist() for each in at), strict=True))):
        rows = np.flatnonzero((at[0] == pair[0]) & (at[1] == pair[1]))
        rows = rows[np.argsort(values[rows])]
        if (count := np.unique(values[rows]).size) < least:
            raise ValueError(
                f"trace must have at least {least} {along} at {fixed[0]} {pair[0]:g} and "
                f"{fixed[1]} {pair[1]:g}, got {count}"
            )
        each = found[["llc", "sem"]].isel(setting=rows)
        each = each.drop_vars([name for name in each.coords if name != "checkpoint"])
        fits.append(fit(each, values[rows]).assign_coords(dict(zip(fixed, pair, strict=True))))
    return fits[0] if len(fits) == 1 else xr.concat(fits, "setting")


def _line(found: xr.Dataset, lr: NDArray[np.float64]) -> xr.Dataset:
    """Return the weighted line through the estimates, at zero."""
    weight = 1 / found["sem"] ** 2
    x = xr.DataArray(lr, dims="setting")
    total, first, second = ((weight * x**power).sum("setting", skipna=False) for power in (0, 1, 2))
    determinant = total * second - first**2
    share = weight * (second - first * x) / determinant
    return xr.Dataset(
        {
            "llc": (share * found["llc"]).sum("setting", skipna=False),
            "sem": np.sqrt((share**2 * found["sem"] ** 2).sum("setting", skipna=False)),
        }
    )
