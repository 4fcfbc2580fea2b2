"""The LLC at infinite nbeta, and its multiplicity, from a run at a ladder of temperatures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.estimators.extrapolation import extrapolated

__all__ = ["extrapolate_nbeta"]

Array = NDArray[np.float64]

MULTIPLICITIES = (1, 2, 3)
# Of exact values of seven normal crossings with errors of 0.1 to 1 %: from 1e5 up a multiplicity of
# this probability was wrong in 1 of 1680 fits, from 1e3 up in 6 of 420.
COLD, SURE = 1e5, 0.99
_GAPS = np.linspace(0.25, 1.0, 16)
_LARGEST_SHIFT = 10.0  # of normal crossings of two weights with powers to 3 it is 2 to 8
_POINTS = 1000


def extrapolate_nbeta(trace: xr.DataTree) -> xr.Dataset:
    r"""Local learning coefficient without the bias of a finite temperature.

    .. math::
        \hat\lambda(n\beta) = \lambda - C\,(n\beta)^{-\delta} \ (m = 1), \qquad
        \hat\lambda(n\beta) = \lambda - \frac{m - 1}{\log n\beta + b} \ (m > 1),

    since the density of states is :math:`\epsilon^{\lambda - 1} (-\log\epsilon)^{m - 1}` times
    corrections of higher order. Both forms are averaged over their parameters with the weight
    :math:`e^{-\chi^2/2}`: :math:`\delta`, the distance to the next pole of the zeta function,
    uniform in [1/4, 1]; what is missing at the smallest `nbeta` uniform between nothing and the
    largest estimate; b uniform up to 10.

    The weights of the forms are the probabilities of m = 1, 2 and 3. The multiplicity is told only
    where all `nbeta` are 1e5 or more and one of them has 0.99; below, terms that the forms do not
    have pass for a multiplicity. A pole nearer than 1/4 does so anywhere. Where it is not told,
    ``llc`` is that of m = 1, which on the exact values of normal crossings is nearer to the truth
    than the coldest estimate whatever m is, if that lacks more than its error; for m > 1 it is
    still below it, by far more than ``sem``: see ``llc_given_m``.

    Parameters
    ----------
    trace : xarray.DataTree
        Of a run with a list of at least three `nbeta`, at one `localization`: the prior stays the
        same. Over less than two decades errors of a percent leave the limit open, and where most of
        the LLC is missing estimates have neither form. `lr` must be small enough for the largest.

    Returns
    -------
    xarray.Dataset, dimensions (checkpoint?, setting?)
        ``llc`` and its standard error ``sem``, dimensionless; ``multiplicity``, NaN where it is not
        identifiable; and along the dimension m ``llc_given_m``, ``sem_given_m`` and
        ``probability``. With the coordinates ``lr`` and ``localization``; the dimension setting
        only if there are several of them.

    Raises
    ------
    ValueError
        If some `lr` and `localization` have fewer than three `nbeta`.

    References
    ----------
    Watanabe 2009, "Algebraic Geometry and Statistical Learning Theory", section 4.

    Examples
    --------
    Weights held so strongly that a sixth of the LLC is missing at the smallest `nbeta`:

    >>> from functools import partial
    >>> import fastllc
    >>> from fastllc import oracles
    >>> oracle = oracles.quadratic([1.0] * 50, n_samples=10)
    >>> trace = fastllc.sample(
    ...     oracle.model,
    ...     oracle.data,
    ...     oracle.loss_fn,
    ...     sampler=partial(fastllc.BAOAB, friction=0.2),
    ...     lr=2e-4,
    ...     nbeta=[1e2, 1e3, 1e4],
    ...     localization=20.0,
    ...     num_burnin_steps=200,
    ...     num_draws=3000,
    ...     seed=0,
    ...     progress=False,
    ... )
    >>> round(oracle.exact(1e2, 20.0), 1), float(oracle.llc)
    (20.8, 25.0)
    >>> found = extrapolate_nbeta(trace)
    >>> bool(abs(found["llc"] - 25.0) < 3 * found["sem"]), bool(found["multiplicity"].isnull())
    (True, True)
    """
    return extrapolated(trace, "nbeta", 3, _fit)


def _fit(found: xr.Dataset, nbeta: Array) -> xr.Dataset:
    """Fit every checkpoint's estimates along the ladder."""
    names = ("llc", "sem", "multiplicity", "llc_given_m", "sem_given_m", "probability")
    fitted = xr.apply_ufunc(
        lambda llc, sem: _average(nbeta, llc, sem),
        found["llc"],
        found["sem"],
        input_core_dims=[["setting"], ["setting"]],
        output_core_dims=[[], [], [], ["m"], ["m"], ["m"]],
        vectorize=True,
    )
    return xr.Dataset(dict(zip(names, fitted, strict=True)), {"m": list(MULTIPLICITIES)})


def _average(
    nbeta: Array, llc: Array, sem: Array
) -> tuple[float, float, float, Array, Array, Array]:
    """Return the LLC, its error and multiplicity, and for each m LLC, error and probability."""
    if not (np.isfinite(llc).all() and (sem > 0).all()):
        nothing = np.full(len(MULTIPLICITIES), np.nan)
        return np.nan, np.nan, np.nan, nothing, nothing, nothing
    forms = _missing(np.log(nbeta), float(np.abs(llc).max()))
    given, errors, evidence = np.array([_given(each, llc, 1 / sem**2) for each in forms]).T
    probability = np.exp(evidence - evidence.max())
    probability /= probability.sum()
    best = int(probability.argmax())
    if nbeta.min() < COLD or probability[best] < SURE:
        return given[0], errors[0], np.nan, given, errors, probability
    return given[best], errors[best], MULTIPLICITIES[best], given, errors, probability


def _given(missing: Array, llc: Array, weight: Array) -> tuple[float, float, float]:
    """Average the LLC over the forms of one m; return its error and the log of the evidence too."""
    if not len(missing):
        return np.nan, np.nan, -np.inf
    limits = (llc + missing) @ weight / weight.sum()
    misfit = (llc + missing - limits[:, None]) ** 2 @ weight / 2
    likelihood = np.exp(misfit.min() - misfit)
    mean = np.average(limits, weights=likelihood)
    spread = np.average((limits - mean) ** 2, weights=likelihood)
    return mean, np.sqrt(spread + 1 / weight.sum()), np.log(likelihood.mean()) - misfit.min()


def _missing(logs: Array, largest: float) -> Iterator[Array]:
    """Yield for each m what estimates lack of the LLC, [form, nbeta]."""
    shares = np.linspace(0, 1, _POINTS + 1)[1:, None]
    for m in MULTIPLICITIES:
        if m == 1:
            decays = np.exp(-_GAPS[:, None, None] * (logs - logs[0]))
            yield (largest * shares * decays).reshape(-1, len(logs))
        elif (least := (m - 1) / largest - logs[0]) < _LARGEST_SHIFT:
            yield (m - 1) / (logs + least + shares * (_LARGEST_SHIFT - least))
        else:
            yield np.empty((0, len(logs)))
