"""The LLC as steps become infinitely small, from runs at several step sizes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fastllc.estimators.coefficient import llc

__all__ = ["extrapolate_lr"]


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
    if "setting" not in trace.sizes:
        raise ValueError("trace must have at least two lr, got one")
    found = llc(trace)
    # Where a coordinate does not vary it is a single number.
    lr, nbeta, localization = (
        np.broadcast_to(np.asarray(found.coords[name].values), found.sizes["setting"])
        for name in ("lr", "nbeta", "localization")
    )
    fits = []
    for at in sorted(set(zip(nbeta.tolist(), localization.tolist(), strict=True))):
        rows = np.flatnonzero((nbeta == at[0]) & (localization == at[1]))
        if np.unique(lr[rows]).size < 2:
            raise ValueError(
                f"trace must have at least two lr at nbeta {at[0]:g} and localization {at[1]:g}, "
                "got one"
            )
        fit = _line(found[["llc", "sem"]].isel(setting=rows), lr[rows])
        fits.append(fit.assign_coords(nbeta=at[0], localization=at[1]))
    return fits[0] if len(fits) == 1 else xr.concat(fits, "setting")


def _line(found: xr.Dataset, lr: np.ndarray[tuple[int], np.dtype[np.float64]]) -> xr.Dataset:
    """Return the weighted line through the estimates, at zero."""
    found = found.drop_vars([name for name in found.coords if name != "checkpoint"])
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
