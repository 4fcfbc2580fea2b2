"""The local learning coefficient of a finished trace."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fastllc.convergence import drift, ess, interval, rhat, standard_error
from fastllc.estimators.traces import Values, draws, over_cells, shared, usable

__all__ = ["llc"]


def llc(trace: xr.DataTree) -> xr.Dataset:
    r"""Local learning coefficient with what tells whether to believe it.

    .. math:: \hat\lambda(w^*) = n\beta \left(\mathbb{E}_w[L_n(w)] - L_n(w^*)\right),

    the expectation being the mean of `draws` over chains. Chains that diverged are left out; of a
    run that was interrupted, the draws that all chains have count, without chains that have fewer
    than half of the longest.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.

    Returns
    -------
    xarray.Dataset, dimensions (checkpoint?, setting?)
        ``llc``, dimensionless; ``sem``, its Monte-Carlo standard error, which accounts for
        minibatches that chains share; ``std``, the standard deviation between chains (NaN for one
        chain), which does not; ``interval``, the 95 % confidence interval, also over
        bound (low, high), see `fastllc.convergence.interval`; ``rhat``, ``ess_bulk``, ``ess_tail``
        and ``drift`` of the draws;
        ``num_chains``, the chains used; ``llc_chains``, also over chain, the estimate of each, NaN
        for one left out. All but ``num_chains`` are NaN where no chain is left.

    References
    ----------
    Lau et al. 2023, "The Local Learning Coefficient", arXiv 2308.12108, sections 3 and 4.
    """
    return over_cells(trace, _llc)


def _llc(cell: xr.DataTree) -> Values:
    values = draws(cell).values
    nbeta = float(cell["nbeta"])
    chains, length = usable(np.isfinite(values))
    used, common = values[chains, :length], shared(cell)
    per_chain, bounds = np.full(len(values), np.nan), np.full(2, np.nan)
    found = dict.fromkeys(
        ("llc", "sem", "std", "rhat", "ess_bulk", "ess_tail", "drift"), float("nan")
    )
    if chains.size:
        per_chain[chains] = nbeta * used.mean(axis=1)
        bounds = nbeta * np.array(interval(used, shared=common))
        found = {
            "llc": float(per_chain[chains].mean()),
            "sem": nbeta * standard_error(used, shared=common),
            "std": float(per_chain[chains].std(ddof=1)) if chains.size > 1 else float("nan"),
            "rhat": rhat(used),
            "ess_bulk": ess(used, shared=common),
            "ess_tail": ess(used, "tail", shared=common),
            "drift": drift(used, shared=common),
        }
    scalars: Values = {name: ((), np.asarray(value)) for name, value in found.items()}
    return {
        **scalars,
        "interval": (("bound",), bounds),
        "num_chains": ((), np.asarray(chains.size)),
        "llc_chains": (("chain",), per_chain),
    }
