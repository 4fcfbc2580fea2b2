"""Information criteria as estimators: WBIC and WAIC."""

from __future__ import annotations

from dataclasses import dataclass, field

import xarray as xr

from fastllc.estimators.estimator import Estimator, Value, value
from fastllc.estimators.observing import ObservingEstimator
from fastllc.estimators.waic import waic
from fastllc.estimators.wbic import free_energy, wbic

__all__ = ["WAICEstimator", "WBICEstimator"]


@dataclass(kw_only=True, eq=False)
class WBICEstimator(Estimator):
    r"""Estimate the free energy of a model: the widely applicable Bayesian information criterion.

    .. math:: \mathrm{WBIC} = n\, \mathbb{E}_w^\beta[L_n(w)], \quad \beta = 1 / \log n.

    The loss must be a mean negative log likelihood, and ``nbeta`` n / log n, its default. See
    `fastllc.estimators.wbic.wbic`.

    Parameters
    ----------
    **settings
        See `Sampling`.

    Attributes
    ----------
    wbic_, wbic_sem_ : float
        The criterion for all n samples, in nats, and its Monte-Carlo standard error. For several
        checkpoints or settings, here and below, an xarray.DataArray over them.
    free_energy_, free_energy_sem_ : float
        n L_n(w*) + lambda log n, which is valid at any temperature; here the same number.
    trace_ : xarray.DataTree
        See `fastllc.sample`.

    References
    ----------
    Watanabe 2013, "A widely applicable Bayesian information criterion", JMLR 14.

    Examples
    --------
    >>> import torch
    >>> model, data = torch.nn.Linear(2, 1), (torch.randn(100, 2), torch.randn(100, 1))
    >>> found = WBICEstimator(num_draws=10, progress=False).fit(
    ...     model, data, lambda outputs, targets: ((outputs - targets) ** 2).mean() / 2
    ... )
    >>> abs(found.wbic_ - found.free_energy_) < 1e-3
    True
    """

    wbic_: Value = field(init=False, repr=False)
    wbic_sem_: Value = field(init=False, repr=False)
    free_energy_: Value = field(init=False, repr=False)
    free_energy_sem_: Value = field(init=False, repr=False)

    def _read(self, trace: xr.DataTree) -> None:
        criterion, energy = wbic(trace), free_energy(trace)
        self.wbic_, self.wbic_sem_ = value(criterion["wbic"]), value(criterion["sem"])
        self.free_energy_ = value(energy["free_energy"])
        self.free_energy_sem_ = value(energy["sem"])


@dataclass(kw_only=True, eq=False)
class WAICEstimator(ObservingEstimator):
    r"""Estimate the Bayes generalisation loss and the singular fluctuation.

    .. math:: \mathrm{WAIC} = T + \tfrac{\beta}{n} V, \quad \nu = \tfrac{\beta}{2} V

    with the Bayes training loss T and the functional variance V, from the losses of the samples of
    the data at each draw. The loss must be a mean negative log likelihood. See
    `fastllc.estimators.waic.waic`.

    Parameters
    ----------
    num_observed, observe_every, **settings
        See `ObservingEstimator` and `Sampling`.

    Attributes
    ----------
    waic_, training_loss_, functional_variance_, singular_fluctuation_ : float
        Each with its Monte-Carlo standard error in ``..._sem_``. For several checkpoints or
        settings an xarray.DataArray over them.
    trace_ : xarray.DataTree
        See `fastllc.sample`; the losses are the observable "data".

    References
    ----------
    Watanabe 2010, "Asymptotic equivalence of Bayes cross validation and widely applicable
    information criterion in singular learning theory", JMLR 11.

    Examples
    --------
    >>> import torch
    >>> model, data = torch.nn.Linear(2, 1), (torch.randn(100, 2), torch.randn(100, 1))
    >>> found = WAICEstimator(num_draws=50, nbeta=100.0, progress=False).fit(
    ...     model, data, lambda outputs, targets: ((outputs - targets) ** 2).mean() / 2
    ... )
    >>> found.singular_fluctuation_ > 0
    True
    """

    waic_: Value = field(init=False, repr=False)
    waic_sem_: Value = field(init=False, repr=False)
    training_loss_: Value = field(init=False, repr=False)
    training_loss_sem_: Value = field(init=False, repr=False)
    functional_variance_: Value = field(init=False, repr=False)
    functional_variance_sem_: Value = field(init=False, repr=False)
    singular_fluctuation_: Value = field(init=False, repr=False)
    singular_fluctuation_sem_: Value = field(init=False, repr=False)

    def _read(self, trace: xr.DataTree) -> None:
        for name, array in waic(trace, self.observable).data_vars.items():
            setattr(self, f"{name}_", value(array))
