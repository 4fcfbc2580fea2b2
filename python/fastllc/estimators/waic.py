"""The WAIC, functional variance and singular fluctuation, from losses of single samples."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fastllc.convergence import standard_error
from fastllc.estimators.observables import open_observables
from fastllc.estimators.traces import Values, num_samples, over_cells, shared

__all__ = ["waic"]

_NAMES = ("waic", "training_loss", "functional_variance", "singular_fluctuation")


def waic(trace: xr.DataTree, observable: str) -> xr.Dataset:
    r"""Widely applicable information criterion: an estimate of the Bayes generalisation loss.

    With :math:`\ell_i(w) = -\log p(x_i | w)` and :math:`\beta` = ``nbeta`` / n,

    .. math::
        T &= -\frac1n \sum_i \log \mathbb{E}_w[e^{-\ell_i(w)}], \quad
        V = \sum_i \operatorname{Var}_w[\ell_i(w)], \\
        \nu &= \tfrac{\beta}{2} V, \quad \mathrm{WAIC} = T + \tfrac{\beta}{n} V.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.
    observable : str
        Losses of training samples, all n of them or some drawn at random, which then stand for all.
        They must be negative log likelihoods.

    Returns
    -------
    xarray.Dataset, dimensions (checkpoint?, setting?)
        ``training_loss`` T and ``waic``, in nats a sample; ``functional_variance`` V, for all n
        samples; ``singular_fluctuation``, dimensionless. Each with its Monte-Carlo standard error,
        ``..._sem``: how well the chains know it, not how far another training set would take it.
        ``num_chains``, the chains used. NaN where no chain is left.

    Raises
    ------
    ValueError
        If there is no such observable, or n is not known.

    Notes
    -----
    The errors are those of the means of each draw's first-order influence on the result.

    References
    ----------
    Watanabe 2010, "Asymptotic equivalence of Bayes cross validation and widely applicable
    information criterion in singular learning theory", JMLR 11.
    """
    n = num_samples(trace)
    return over_cells(trace, lambda cell: _waic(cell, observable, n))


def _waic(cell: xr.DataTree, observable: str, n: int) -> Values:
    (losses,) = open_observables(cell, observable)
    beta = float(cell.dataset["nbeta"]) / n
    shape = losses.chains.size, losses.num_draws
    num_draws, fraction = shape[0] * shape[1], 1 / losses.loss.sizes["sample"]
    means = dict.fromkeys(_NAMES, float("nan"))
    errors = dict(means)
    if num_draws > 1:
        training_loss = 0.0
        likelihood, square = np.zeros(shape), np.zeros(shape)
        for block in losses.sample_blocks():
            least = block.min(axis=(0, 1))
            relative = np.exp(least - block)
            mean = relative.mean(axis=(0, 1))
            training_loss += fraction * float((least - np.log(mean)).sum())
            likelihood += fraction * (relative / mean).sum(axis=2)
            square += fraction * ((block - block.mean(axis=(0, 1))) ** 2).sum(axis=2)
        variance = n * square * num_draws / (num_draws - 1)
        influences = {
            "waic": beta / n * variance - likelihood,
            "training_loss": -likelihood,
            "functional_variance": variance,
            "singular_fluctuation": beta / 2 * variance,
        }
        means = {name: float(values.mean()) for name, values in influences.items()}
        means["training_loss"] = training_loss
        means["waic"] += training_loss + 1
        errors = {name: standard_error(v, shared=shared(cell)) for name, v in influences.items()}
    found: Values = {
        **{name: ((), np.asarray(value)) for name, value in means.items()},
        **{f"{name}_sem": ((), np.asarray(value)) for name, value in errors.items()},
        "num_chains": ((), np.asarray(shape[0])),
    }
    return found
