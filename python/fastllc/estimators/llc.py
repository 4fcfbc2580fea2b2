"""The local learning coefficient, from the loss along SGLD chains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from fastllc import diagnostics
from fastllc.engine.batches import Batches, Data, open_data
from fastllc.engine.chain import Chain
from fastllc.engine.objective import Evaluate, LossFn, Objective
from fastllc.engine.run import initial_loss, run_chains, trainable
from fastllc.errors import DivergenceError, DivergenceWarning
from fastllc.estimators.checks import finite, integer, non_negative, positive
from fastllc.estimators.progress import ChainProgress
from fastllc.estimators.samples import to_dataset
from fastllc.samplers.sgld import SGLD
from fastllc.seeds import draw_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


__all__ = ["LLCEstimator", "default_nbeta"]


def default_nbeta(num_samples: int) -> float:
    r"""Inverse temperature :math:`n\beta = n / \log n` of the WBIC.

    Parameters
    ----------
    num_samples : int
        Samples n in the training data (not in a minibatch), >= 2.

    Returns
    -------
    float
        n / log n, dimensionless.

    Raises
    ------
    TypeError, ValueError
        If `num_samples` is not an int >= 2.

    References
    ----------
    Watanabe 2013, "A widely applicable Bayesian information criterion", JMLR 14, section 1.

    Examples
    --------
    >>> round(default_nbeta(1000), 2)
    144.76
    """
    n = integer("num_samples", num_samples, 2)
    return n / math.log(n)


@dataclass(kw_only=True, eq=False)
class LLCEstimator:
    r"""Estimate the local learning coefficient (LLC) of a trained model.

    Chains of a sampler start at the trained weights :math:`w^*` and explore the local posterior

    .. math:: p(w) \propto \exp\left(-n\beta\, L_n(w)
              - \tfrac{\gamma}{2} \lVert w - w^* \rVert^2\right),

    and the LLC is how much loss they find above the minimum, in units of the temperature:

    .. math:: \hat\lambda(w^*) = n\beta \left(\mathbb{E}_w[L_n(w)] - L_n(w^*)\right).

    The expectation is the mean over chains and draws of the loss on the minibatch of that step,
    taken before the step. :math:`L_n` is the mean loss per sample.

    Parameters
    ----------
    sampler : callable, default SGLD
        Called as ``sampler(params, lr=, nbeta=, localization=, noise_level=, weight_decay=,
        bounding_box_size=, seed=)`` once per chain; returns a ``torch.optim.Optimizer``.
    lr : float, default 1e-4
        Step size :math:`\epsilon` > 0.
    nbeta : float, optional
        Inverse temperature :math:`n\beta` > 0. None means ``default_nbeta(n)`` for n samples.
    localization : float, default 100
        Strength :math:`\gamma` >= 0 of the pull towards :math:`w^*`.
    noise_level : float, default 1
        Standard deviation of the noise in units of :math:`\sqrt\epsilon`, >= 0. Other values than 1
        sample at another temperature than `nbeta` says.
    weight_decay : float, default 0
        Pull towards zero, >= 0.
    bounding_box_size : float, optional
        Weights are kept within this distance > 0 of :math:`w^*`, coordinate by coordinate.
    num_chains : int, default 4
        Independent chains, >= 1; they run one after another in place.
    num_draws : int, default 500
        Draws per chain, >= 1.
    num_burnin_steps : int, default 0
        Steps before the first draw's, >= 0.
    num_steps_bw_draws : int, default 1
        Steps per draw, >= 1; the draw is the last of them.
    batch_size : int, optional
        Samples per minibatch, in ``[1, n]``. None means that of the DataLoader, or else 256 (all
        samples where there are fewer).
    init_loss : "full" or float, default "full"
        :math:`L_n(w^*)`: computed over the full data, or given.
    seed : int, optional
        In ``[0, 2**63)``. Same seed, same data, same draws. None draws one from torch's CPU
        generator; either way it is kept as ``seed_``.
    progress : bool, default True
        Show a progress bar.

    Attributes
    ----------
    llc_ : float
        The estimate, over all chains that stayed finite.
    llc_sem_ : float
        Monte-Carlo standard error of ``llc_``, from the effective sample size of all their draws.
        NaN below four draws.
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
    samples_ : xarray.Dataset
        ``loss`` (chain, draw), NaN for a diverged chain; ``loss_trace`` (chain, step), NaN from
        the divergence on; ``init_loss``; ``diverged_at`` (chain), -1 for a chain that stayed
        finite. The attributes hold settings, seed, versions and build.

    References
    ----------
    Lau et al. 2023, "The Local Learning Coefficient", arXiv 2308.12108, sections 3 and 4.

    Examples
    --------
    A quadratic loss in four directions; its LLC is 4/2 (a little less at finite `nbeta`).

    >>> import fastllc
    >>> class Point(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = nn.Parameter(torch.zeros(4))
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

    sampler: Callable[..., torch.optim.Optimizer] = SGLD
    lr: float = 1e-4
    nbeta: float | None = None
    localization: float = 100.0
    noise_level: float = 1.0
    weight_decay: float = 0.0
    bounding_box_size: float | None = None
    num_chains: int = 4
    num_draws: int = 500
    num_burnin_steps: int = 0
    num_steps_bw_draws: int = 1
    batch_size: int | None = None
    init_loss: Literal["full"] | float = "full"
    seed: int | None = None
    progress: bool = True

    llc_: float = field(init=False, repr=False)
    llc_sem_: float = field(init=False, repr=False)
    llc_std_: float = field(init=False, repr=False)
    llc_chains_: NDArray[np.float64] = field(init=False, repr=False)
    init_loss_: float = field(init=False, repr=False)
    nbeta_: float = field(init=False, repr=False)
    seed_: int = field(init=False, repr=False)
    samples_: xr.Dataset = field(init=False, repr=False)

    def fit(
        self,
        model: nn.Module,
        data: Data,
        loss_fn: LossFn | None = None,
        *,
        evaluate: Evaluate | None = None,
    ) -> LLCEstimator:
        """Run the chains on `model` and estimate its LLC.

        The model is sampled in place, in the mode it is in, and comes back as it was: weights,
        buffers, gradients, modes and flags. Parameters that do not require a gradient are not
        sampled. The caller's random state is left alone.

        Parameters
        ----------
        model : nn.Module
            The trained model, at a minimum of the loss.
        data : (Tensor, Tensor), Dataset or DataLoader
            Inputs and targets of shapes ``[n, ...]``, or a source of batches, which is read afresh
            every epoch.
        loss_fn : callable, optional
            ``loss_fn(outputs, targets)``, for data that come as pairs.
        evaluate : callable, optional
            ``evaluate(model, batch)``, for any other. Either returns the batch mean as a scalar, or
            one loss per sample of shape [batch].

        Returns
        -------
        LLCEstimator
            This object, with the results in the attributes that end in ``_``.

        Raises
        ------
        TypeError, ValueError
            For settings, data or a loss that cannot be sampled, before anything is changed.
        DivergenceError
            If no chain stayed finite.

        Warns
        -----
        DivergenceWarning
            Names the chains that did not stay finite; they are left out of every mean.
        """
        self._check_settings()
        batches = open_data(data, self.batch_size, trainable(model)[0].device)
        objective = Objective(model, loss_fn, evaluate)
        nbeta = _resolve_nbeta(self.nbeta, batches)
        # Halved: attributes in files are signed 64-bit integers at most.
        seed = draw_key() // 2 if self.seed is None else int(self.seed)
        num_steps = self.num_burnin_steps + self.num_draws * self.num_steps_bw_draws
        draws = slice(
            self.num_burnin_steps + self.num_steps_bw_draws - 1, None, self.num_steps_bw_draws
        )

        given = None if self.init_loss == "full" else float(self.init_loss)
        init_loss = initial_loss(model, objective, batches, seed, given)
        progress = ChainProgress(
            self.num_chains, num_steps, draws, nbeta, init_loss, shown=self.progress
        )
        running = run_chains(
            model,
            objective,
            batches,
            partial(self._make_sampler, nbeta=nbeta),
            num_chains=self.num_chains,
            num_steps=num_steps,
            seed=seed,
            on_block=progress.advance,
        )
        chains = []
        with progress, closing(running):
            for chain in running:
                progress.finish(chain)
                chains.append(chain)
        self._report_diverged(chains, nbeta)

        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        del settings["progress"]
        settings |= {
            "sampler": getattr(self.sampler, "__qualname__", repr(self.sampler)),
            "nbeta": nbeta,
            "seed": seed,
            "batch_size": batches.batch_size,
            "num_samples": batches.num_samples,
        }
        self.nbeta_, self.seed_, self.init_loss_ = nbeta, seed, init_loss
        self.samples_ = to_dataset(chains, draws, init_loss, settings)
        summary = diagnostics.summarize(self.samples_)
        self.llc_, self.llc_sem_, self.llc_std_ = summary.llc, summary.sem, summary.std
        self.llc_chains_ = diagnostics.llc_of_chains(self.samples_)
        return self

    def summary(self) -> diagnostics.Summary:
        """Estimate, convergence diagnostics, and warnings in plain words; print it to read it."""
        return diagnostics.summarize(self._fitted_samples())

    def plot_trace(self, ax: Axes | None = None) -> Figure:
        """Draw the loss along every chain and the running LLC.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw the losses alone. None makes a figure with the running LLC below them.

        Returns
        -------
        matplotlib Figure
            The figure; ``.savefig("trace.png")`` writes it.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from fastllc.plots import plot_trace

        return plot_trace(self._fitted_samples(), ax)

    def _check_settings(self) -> None:
        if not callable(self.sampler):
            raise TypeError(f"sampler must be callable, got {self.sampler!r}")
        positive("lr", self.lr)
        for name in ("localization", "noise_level", "weight_decay"):
            non_negative(name, getattr(self, name))
        for name in ("nbeta", "bounding_box_size"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        for name in ("num_chains", "num_draws", "num_steps_bw_draws"):
            integer(name, getattr(self, name), 1)
        integer("num_burnin_steps", self.num_burnin_steps, 0)
        if self.batch_size is not None:
            integer("batch_size", self.batch_size, 1)
        if self.seed is not None:
            integer("seed", self.seed, 0, below=2**63)
        if self.init_loss != "full":
            finite("init_loss", self.init_loss, 'a finite number or "full"')

    def _make_sampler(
        self, params: list[nn.Parameter], key: int, *, nbeta: float
    ) -> torch.optim.Optimizer:
        return self.sampler(
            params,
            lr=self.lr,
            nbeta=nbeta,
            localization=self.localization,
            noise_level=self.noise_level,
            weight_decay=self.weight_decay,
            bounding_box_size=self.bounding_box_size,
            seed=key,
        )

    def _report_diverged(self, chains: list[Chain], nbeta: float) -> None:
        diverged = {i: c.diverged_at for i, c in enumerate(chains) if c.diverged_at is not None}
        if not diverged:
            return
        if len(diverged) == len(chains):
            raise DivergenceError(
                f"all {len(chains)} chains diverged, the first at step {min(diverged.values())}: "
                f"lower lr (got {self.lr:g}), or lower nbeta (got {nbeta:g}), "
                "or set bounding_box_size"
            )
        names = ", ".join(f"chain {i} at step {step}" for i, step in diverged.items())
        warnings.warn(
            f"{len(diverged)} of {len(chains)} chains diverged and are left out ({names}): "
            "lower lr",
            DivergenceWarning,
            stacklevel=3,
        )

    def _fitted_samples(self) -> xr.Dataset:
        if not hasattr(self, "samples_"):
            raise AttributeError("this LLCEstimator has no samples yet: call fit first")
        return self.samples_


def _resolve_nbeta(nbeta: float | None, batches: Batches) -> float:
    if nbeta is not None:
        return float(nbeta)
    if batches.num_samples is None:
        raise ValueError(
            "nbeta must be given for data that cannot tell their number of samples, got None"
        )
    if batches.num_samples < 2:
        raise ValueError("nbeta must be given for data of fewer than 2 samples, got None")
    return default_nbeta(batches.num_samples)
