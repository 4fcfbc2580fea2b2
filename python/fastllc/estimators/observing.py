"""Estimators that need the losses of the samples of the data at each draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import xarray as xr
from torch import Tensor, nn

from fastllc.engine.checkpoints import Weights
from fastllc.engine.data import Data
from fastllc.engine.objective import Evaluate, LossFn
from fastllc.engine.observables import Observable
from fastllc.engine.study import Chain
from fastllc.engine.walkers import Spectator
from fastllc.estimators.estimator import Estimator

__all__ = ["ObservingEstimator"]


@dataclass(kw_only=True, eq=False)
class ObservingEstimator(Estimator):
    """Base of estimators that read the losses of samples.

    Parameters
    ----------
    num_observed : int, optional
        How many samples of the data, from the first; None: all.
    observe_every : int, default 1
        At every how many draws.
    **settings
        See `Sampling`.
    """

    observable: ClassVar[str] = "data"

    num_observed: int | None = None
    observe_every: int = 1

    def run(
        self,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        data: Data,
        loss_fn: LossFn | None = None,
        *,
        evaluate: Evaluate | None = None,
        checkpoints: Sequence[Weights] | Mapping[str, Weights] | None = None,
        watch: Callable[[Chain, Tensor], None] | None = None,
        spectator: Spectator | None = None,
    ) -> xr.DataTree:
        """Run all chains, the samples of the data observed; see `Sampling.run`."""
        observables = dict(self.observables or {})
        if self.observable in observables:
            raise ValueError(f"observables must leave the name {self.observable!r} to the data")
        observables[self.observable] = Observable(data, self.num_observed, self.observe_every)
        return super(ObservingEstimator, replace(self, observables=observables)).run(
            model,
            data,
            loss_fn,
            evaluate=evaluate,
            checkpoints=checkpoints,
            watch=watch,
            spectator=spectator,
        )
