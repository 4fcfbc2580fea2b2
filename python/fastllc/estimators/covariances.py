"""Covariances as estimators: of the losses of samples, and of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from torch import Tensor, nn

from fastllc.engine.checkpoints import Weights
from fastllc.engine.data import Data
from fastllc.engine.objective import Evaluate, LossFn
from fastllc.engine.study import Chain
from fastllc.estimators.covariance import loss_correlation, loss_covariance
from fastllc.estimators.eigen import TopEigenpairs
from fastllc.estimators.estimator import Estimator
from fastllc.estimators.observing import ObservingEstimator
from fastllc.estimators.traces import LEADING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LossCovarianceEstimator", "WeightCovarianceEstimator"]


@dataclass(kw_only=True, eq=False)
class LossCovarianceEstimator(ObservingEstimator):
    r"""Estimate how the losses of samples vary together over the posterior.

    .. math:: C_{ij} = \operatorname{Cov}_w[\ell_i(w), \ell_j(w)]

    See `fastllc.estimators.covariance.loss_covariance`.

    Parameters
    ----------
    num_observed, observe_every, **settings
        See `ObservingEstimator` and `Sampling`.

    Attributes
    ----------
    covariance_, correlation_ : xarray.DataArray, dimensions (..., sample, other_sample)
    trace_ : xarray.DataTree
        See `fastllc.sample`; the losses are the observable "data".

    References
    ----------
    Kreer et al. 2025, "Bayesian Influence Functions for Hessian-Free Data Attribution",
    arXiv 2509.26544.

    Examples
    --------
    >>> import torch
    >>> model, data = torch.nn.Linear(2, 1), (torch.randn(20, 2), torch.randn(20, 1))
    >>> found = LossCovarianceEstimator(num_draws=50, num_observed=5, progress=False).fit(
    ...     model, data, torch.nn.functional.mse_loss
    ... )
    >>> found.covariance_.shape
    (5, 5)
    """

    covariance_: xr.DataArray = field(init=False, repr=False)
    correlation_: xr.DataArray = field(init=False, repr=False)

    def _read(self, trace: xr.DataTree) -> None:
        self.covariance_ = loss_covariance(trace, self.observable)
        self.correlation_ = loss_correlation(trace, self.observable)


@dataclass(kw_only=True, eq=False)
class WeightCovarianceEstimator(Estimator):
    r"""Estimate the directions in which the weights vary most over the posterior.

    The leading eigenpairs of :math:`\operatorname{Cov}_w[w]` over the draws of all chains that
    stayed finite, streamed; see `fastllc.estimators.eigen.TopEigenpairs`. Directions of large
    variance are those in which the loss is flat. Nothing of it is kept in a ``store``.

    Parameters
    ----------
    k : int, default 10
        Eigenpairs, >= 1. Each chain keeps 2 k + 17 vectors of the size of the weights.
    **settings
        See `Sampling`.

    Attributes
    ----------
    eigenvalues_ : xarray.DataArray, dimensions (..., pair)
        Descending; NaN for pairs that the draws do not span.
    eigenvectors_ : xarray.DataArray, dimensions (..., pair, weight)
        Orthonormal, over the weights of all trained parameters in the model's order.
    total_ : xarray.DataArray, dimensions (...)
        Sum of all eigenvalues.
    trace_ : xarray.DataTree
        See `fastllc.sample`.

    References
    ----------
    Ross et al. 2008, "Incremental Learning for Robust Visual Tracking", International Journal of
    Computer Vision 77, section 3.1.

    Examples
    --------
    >>> import torch
    >>> model, data = torch.nn.Linear(2, 1), (torch.randn(20, 2), torch.randn(20, 1))
    >>> found = WeightCovarianceEstimator(k=2, num_draws=50, progress=False).fit(
    ...     model, data, torch.nn.functional.mse_loss
    ... )
    >>> found.eigenvectors_.shape
    (2, 3)
    """

    k: int = 10

    eigenvalues_: xr.DataArray = field(init=False, repr=False)
    eigenvectors_: xr.DataArray = field(init=False, repr=False)
    total_: xr.DataArray = field(init=False, repr=False)

    def fit(
        self,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        data: Data,
        loss_fn: LossFn | None = None,
        *,
        evaluate: Evaluate | None = None,
        checkpoints: Sequence[Weights] | Mapping[str, Weights] | None = None,
    ) -> Self:
        """Sample, and stream the eigenpairs; see `Estimator.fit`."""
        streams: dict[Chain, TopEigenpairs] = {}

        def watch(chain: Chain, delta: Tensor) -> None:
            if chain not in streams:
                streams[chain] = TopEigenpairs(self.k)
            streams[chain].update(delta[None])

        self.trace_ = self.run(
            model, data, loss_fn, evaluate=evaluate, checkpoints=checkpoints, watch=watch
        )
        self._merge(streams)
        return self

    def _merge(self, streams: Mapping[Chain, TopEigenpairs]) -> None:
        """Put the chains of each checkpoint and setting together, without those that diverged."""
        lost = self.trace_.dataset["diverged_at"]
        dims = [dim for dim in lost.dims if dim in LEADING]
        merged: dict[tuple[int, ...], TopEigenpairs] = {}
        for chain, stream in streams.items():
            cell = tuple(getattr(chain, str(dim)) for dim in dims)
            if lost.values[(*cell, chain.chain)] < 0:
                merged.setdefault(cell, TopEigenpairs(self.k)).merge(stream)
        shape = [lost.sizes[dim] for dim in dims]
        pairs = {cell: stream.eigenpairs() for cell, stream in merged.items()}
        size = max(p.vectors.shape[1] for p in pairs.values())
        values = np.full((*shape, self.k), np.nan)
        vectors = np.full((*shape, self.k, size), np.nan)
        totals = np.full(shape, np.nan)
        for cell, found in pairs.items():
            count = len(found.values)
            values[cell][:count] = found.values.cpu().numpy()
            vectors[cell][:count] = found.vectors.cpu().numpy()
            totals[cell] = found.trace
        coords = {name: c.variable for name, c in lost.coords.items() if set(c.dims) <= set(dims)}
        self.eigenvalues_ = xr.DataArray(values, coords, (*dims, "pair"))
        self.eigenvectors_ = xr.DataArray(vectors, coords, (*dims, "pair", "weight"))
        self.total_ = xr.DataArray(totals, coords, dims)
