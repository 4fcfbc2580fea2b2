"""The local learning coefficient, from the loss along chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from fastllc import diagnostics
from fastllc.calibration import Calibration, calibrate
from fastllc.calibration.calibrate import FOUND, NOT_PILOTS
from fastllc.engine.checkpoints import Weights
from fastllc.engine.data import Data
from fastllc.engine.objective import Evaluate, LossFn
from fastllc.engine.sampling import Sampling
from fastllc.errors import warn
from fastllc.estimators.coefficient import llc
from fastllc.estimators.estimator import Estimator, Value, value
from fastllc.samplers.sgld import SGLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LLCEstimator"]


@dataclass(kw_only=True, eq=False)
class LLCEstimator(Estimator):
    r"""Estimate the local learning coefficient (LLC) of a trained model.

    Chains of a sampler explore the local posterior around the trained weights :math:`w^*`, and the
    LLC is how much loss they find above the minimum, in units of the temperature:

    .. math:: \hat\lambda(w^*) = n\beta \left(\mathbb{E}_w[L_n(w)] - L_n(w^*)\right).

    The expectation is the mean over chains and draws of the loss on the minibatch of that step,
    taken before the step. :math:`L_n` is the mean loss per sample. With a ``mask``, or data other
    than those of the training, it is the weight-refined or the data-refined LLC.

    Parameters
    ----------
    settings : "auto", optional
        Let `fastllc.calibrate` find `lr`, `localization`, `num_chains`, `num_draws` and
        `num_burnin_steps`, which must be left alone, and take `BAOAB` for the default `SGLD`; then
        run. If no setting can be trusted, `fit` raises `CalibrationError`, which says why; it warns
        where the pilot says that the LLC may come out far too small.
    sem : float, default 0.02
        With ``settings="auto"``, the standard error to aim at, as a share of the LLC.
    **sampling
        See `Sampling`.

    Attributes
    ----------
    llc_ : float
        The estimate, over all chains that stayed finite. For several checkpoints or settings, here
        and below, an xarray.DataArray over them.
    llc_sem_ : float
        Monte-Carlo standard error of ``llc_``, from the effective sample size of all their draws.
        NaN below four draws.
    llc_interval_ : ndarray of float, shape [2]
        95 % confidence interval of what the chains converge to at these settings: from the scatter
        between chains and their pieces; see `fastllc.convergence.interval`. The noise of the
        initial loss is in it: :math:`L_n(w^*)` is of the very samples that the chains see.
    llc_std_ : float
        Standard deviation between chains (ddof 1). NaN for one chain.
    llc_chains_ : ndarray of float, shape [num_chains]
        The estimate of each chain; NaN for a diverged one.
    init_loss_ : float
        :math:`L_n(w^*)` as used.
    nbeta_ : float
        :math:`n\beta` as used.
    seed_ : int
        The seed as used.
    trace_ : xarray.DataTree
        The trace of all chains; see `fastllc.sample`.
    calibration_ : Calibration
        With ``settings="auto"``, why these settings: print it, or call its ``plot()``.

    References
    ----------
    Lau et al. 2023, "The Local Learning Coefficient", arXiv 2308.12108, sections 3 and 4.
    Wang et al. 2024, "Differentiation and specialization of attention heads via the refined local
    learning coefficient", arXiv 2410.02984.

    Examples
    --------
    A quadratic loss in four directions; its LLC is 4/2 (a little less at finite `nbeta`).

    >>> import fastllc, torch
    >>> class Point(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = torch.nn.Parameter(torch.zeros(4))
    ...
    ...     def forward(self, x):
    ...         return (self.w**2).sum().expand(len(x))
    >>> data = torch.zeros(100, 1), torch.zeros(100)
    >>> llc = fastllc.LLCEstimator(
    ...     lr=1e-3,
    ...     localization=1.0,
    ...     nbeta=100.0,
    ...     num_chains=4,
    ...     num_draws=2000,
    ...     num_burnin_steps=100,
    ...     seed=1,
    ...     progress=False,
    ... )
    >>> llc = llc.fit(Point(), data, lambda outputs, targets: outputs - targets)
    >>> abs(llc.llc_ - 2.0) < 0.3
    True
    """

    settings: Literal["auto"] | None = None
    sem: float = 0.02
    calibration_: Calibration = field(init=False, repr=False)
    llc_: Value = field(init=False, repr=False)
    llc_sem_: Value = field(init=False, repr=False)
    llc_interval_: NDArray[np.float64] | xr.DataArray = field(init=False, repr=False)
    llc_std_: Value = field(init=False, repr=False)
    llc_chains_: NDArray[np.float64] | xr.DataArray = field(init=False, repr=False)
    init_loss_: Value = field(init=False, repr=False)
    nbeta_: Value = field(init=False, repr=False)
    seed_: int = field(init=False, repr=False)

    def _sampling(
        self,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        data: Data,
        loss_fn: LossFn | None,
        evaluate: Evaluate | None,
        checkpoints: Sequence[Weights] | Mapping[str, Weights] | None,
    ) -> Sampling:
        if self.settings is None:
            return self
        if self.settings != "auto":
            raise ValueError(f"settings must be 'auto' or None, got {self.settings!r}")
        if checkpoints is not None or not isinstance(model, nn.Module):
            raise ValueError("settings must be None for several checkpoints, got 'auto'")
        defaults = {f.name: f.default for f in fields(Sampling)}
        for name in FOUND:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"{name} must be left alone with settings='auto', got {getattr(self, name)!r}"
                )
        if self.store is not None and self.seed is None:
            raise ValueError(
                "seed must be given with settings='auto' and a store, which goes on with the "
                "settings that the same pilot finds, got None"
            )
        given = {name: getattr(self, name) for name in defaults if name not in FOUND | NOT_PILOTS}
        if self.sampler is SGLD:
            del given["sampler"]
        self.calibration_ = calibrate(
            model, data, loss_fn, evaluate=evaluate, sem=self.sem, **given
        )
        found = self.calibration_.settings
        for doubt in self.calibration_.doubts:
            warn(doubt)
        return replace(self, settings=None, **found)

    def _read(self, trace: xr.DataTree) -> None:
        found = llc(trace)
        self.llc_ = value(found["llc"])
        self.llc_sem_, self.llc_std_ = value(found["sem"]), value(found["std"])
        chains, bounds = found["llc_chains"], found["interval"]
        self.llc_chains_ = chains.values if chains.ndim == 1 else chains
        self.llc_interval_ = bounds.values if bounds.ndim == 1 else bounds
        self.init_loss_ = value(trace.dataset["init_loss"])
        self.nbeta_ = value(trace.dataset["nbeta"])
        self.seed_ = int(trace.attrs["seed"])

    def summary(self) -> diagnostics.Summary | diagnostics.Summaries:
        """Estimate, convergence diagnostics, and warnings in plain words; print it to read it."""
        return diagnostics.summarize(self._fitted())

    def plot_trace(self, ax: Axes | None = None) -> Figure:
        """Draw the loss along every chain and the running LLC; see `fastllc.plots.plot_trace`.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from fastllc.plots import plot_trace

        return plot_trace(self._fitted(), ax)
