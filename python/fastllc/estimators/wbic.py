"""Free energy: the WBIC, and its estimate by the local learning coefficient."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from fastllc.estimators.coefficient import llc
from fastllc.estimators.traces import num_samples

__all__ = ["free_energy", "wbic"]

# The error that it makes of the WBIC is as small a part of lambda log n.
_MAX_DEVIATION = 1e-3


def wbic(trace: xr.DataTree) -> xr.Dataset:
    r"""Widely applicable Bayesian information criterion.

    .. math:: \mathrm{WBIC} = n\, \mathbb{E}_w^\beta[L_n(w)], \quad \beta = 1 / \log n,

    which is the free energy :math:`-\log \int e^{-n L_n(w)} \varphi(w)\, dw` up to
    :math:`O_p(\sqrt{\log n})`; :math:`L_n` is a mean negative log likelihood. With a localization
    it is that of the neighbourhood of :math:`w^*`.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace, sampled at ``nbeta`` = n / log n.

    Returns
    -------
    xarray.Dataset, dimensions (checkpoint?, setting?)
        ``wbic`` and its Monte-Carlo standard error ``sem``, for all n samples, in the units of the
        loss (nats). NaN where no chain is left.

    Raises
    ------
    ValueError
        If ``nbeta`` is another, or n is not known.

    References
    ----------
    Watanabe 2013, "A widely applicable Bayesian information criterion", JMLR 14, theorem 4.
    """
    n = num_samples(trace)
    expected = n / math.log(n)
    nbeta = np.unique(trace.dataset.coords["nbeta"].values)
    wrong = nbeta[abs(nbeta / expected - 1) > _MAX_DEVIATION]
    if wrong.size:
        raise ValueError(
            f"nbeta must be n / log n = {expected:.6g} for n = {n}, got {wrong[0]:g}: sample at "
            "that, or select the setting that does"
        )
    found = llc(trace)
    energy = n * (found["llc"] / found["nbeta"] + trace.dataset["init_loss"])
    return xr.Dataset({"wbic": energy, "sem": n * found["sem"] / found["nbeta"]})


def free_energy(trace: xr.DataTree) -> xr.Dataset:
    r"""Free energy by its asymptotic expansion.

    .. math:: F_n \approx n L_n(w^*) + \hat\lambda(w^*) \log n,

    which is the `wbic` where ``nbeta`` is n / log n. The remainder is
    :math:`-(m - 1) \log\log n + O_p(1)` with the multiplicity m. With a localization it is that of
    the neighbourhood of :math:`w^*`: of two minima the posterior prefers the one of lower free
    energy.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace, at any ``nbeta``.

    Returns
    -------
    xarray.Dataset, dimensions (checkpoint?, setting?)
        ``free_energy`` and its Monte-Carlo standard error ``sem``, for all n samples, in the units
        of the loss (nats). NaN where no chain is left.

    Raises
    ------
    ValueError
        If n is not known.

    References
    ----------
    Watanabe 2009, "Algebraic Geometry and Statistical Learning Theory", main formula II;
    Lau et al. 2023, arXiv 2308.12108, section 2.
    """
    n = num_samples(trace)
    found = llc(trace)
    energy = found["llc"] * math.log(n) + n * trace.dataset["init_loss"]
    return xr.Dataset({"free_energy": energy, "sem": found["sem"] * math.log(n)})
