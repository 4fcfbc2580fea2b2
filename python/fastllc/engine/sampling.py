"""Sampling of the local posterior: settings, and the run that they describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import torch
import xarray as xr
from torch import Tensor, nn

from fastllc import checks
from fastllc.engine.checkpoints import Weights
from fastllc.engine.data import Data
from fastllc.engine.loop import Schedule
from fastllc.engine.objective import Evaluate, LossFn
from fastllc.engine.observables import Observable
from fastllc.engine.study import Chain, grid
from fastllc.engine.walkers import Spectator
from fastllc.mala import check_judged
from fastllc.samplers.metrics import Metrics
from fastllc.samplers.metropolis import MALA
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.sgld import SGLD

__all__ = ["Sampling", "default_nbeta", "sample"]


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
    n = checks.integer("num_samples", num_samples, 2)
    return n / math.log(n)


@dataclass(kw_only=True, eq=False)
class Sampling:
    r"""How the local posterior of a trained model is sampled.

    Chains of a sampler start at the trained weights :math:`w^*` and explore

    .. math:: p(w) \propto \exp\left(-n\beta\, L_n(w)
              - \tfrac{\gamma}{2} \lVert w - w^* \rVert^2\right),

    where :math:`L_n` is the mean loss per sample. The constructor only stores; `run` checks.

    Parameters
    ----------
    sampler : callable, default SGLD
        Called as ``sampler(params, lr=, nbeta=, localization=, noise_level=, weight_decay=,
        bounding_box_size=, seed=)``, with ``mask=`` and ``save_metrics=`` where they are asked for;
        returns a ``torch.optim.Optimizer``. ``functools.partial`` sets what else it takes.
    lr : float or list of float, default 1e-4
        Step size :math:`\epsilon` > 0. Lists of this and the next two span a grid of settings.
    nbeta : float or list of float, optional
        Inverse temperature :math:`n\beta` > 0. None means n / log n for n samples.
    localization : float or list of float, default 100
        :math:`\gamma` >= 0, how strongly chains are held at :math:`w^*`.
    noise_level : float, default 1
        Factor >= 0 of the noise; 1 samples the posterior.
    weight_decay : float, default 0
        Pull towards zero weights, >= 0.
    bounding_box_size : float, optional
        Largest distance from :math:`w^*`, coordinate by coordinate.
    mask : mapping of str to Tensor, optional
        Boolean, for parameters by name: the weights that are sampled (the weight-refined LLC).
        Parameters without one are not restricted.
    num_chains : int, default 4
        Independent chains, at each checkpoint and setting.
    num_draws : int, default 500
        Draws per chain.
    num_burnin_steps : int, default 0
        Steps before the first draw, which no mean contains.
    num_steps_bw_draws : int, default 1
        Steps from one draw to the next.
    batch_size : int, optional
        Samples per minibatch. None means 256, or all of fewer samples.
    replacement : bool, default False
        Whether samples are drawn with replacement; else every epoch is one random order of them.
    shared_batches : bool, default False
        Whether all chains see the same minibatches. That is cheaper, but their noise is then common
        to all chains, and more chains do not average it out.
    accumulation : int, default 1
        Minibatches whose gradients are averaged in a step.
    autocast : torch.dtype, optional
        Lower precision of the forward pass, as in `torch.autocast`.
    init_loss : "paired", "full" or float, default "paired"
        :math:`L_n(w^*)`: the mean over all data, or a number. With "paired", where data are tensors
        and the loss of a minibatch is the mean over its samples, the losses of the same samples at
        :math:`w^*` are also subtracted from each minibatch's loss, a control variate.
    observables : mapping of str to data or Observable, optional
        Samples whose losses are kept at each draw; see `Observable`.
    save_metrics : bool, default False
        Whether the `Metrics` of the sampler are kept at each draw.
    save_acceptance : bool, default False
        Whether each draw also tells how probably its step of `SGLD` would have been accepted by the
        Metropolis-adjusted algorithm, as `mala_acceptance` does, for one more gradient a draw. Far
        below 1, ``lr`` is too large. Of `MALA` it is the probability of its own steps.
    seed : int, optional
        In ``[0, 2**63)``. None draws one from torch's generator; it is recorded either way.
    common_random_numbers : bool, default False
        Whether chains of one number have the same noise and minibatches at all checkpoints, so that
        differences between checkpoints have little variance.
    engine : {"auto", "vectorised", "inplace"}, default "auto"
        Whether chains are stacked and run at once, or run one after another in the model itself.
        "auto" stacks where the model, the data and the sampler allow it and it pays; the trace says
        which and why.
    chunk_size : int, optional
        How many chains to stack at most. None means as many as fit in 1 GiB.
    compile : bool, default False
        Whether the vectorised gradient is compiled by torch's inductor, which takes a second or two
        and pays where a model is small and steps are thousands: with 10 chains of a linear 8-8-8-8
        a step then takes half of the time. The loss must be the same operations at every step.
        Chains that run in place are not compiled.
    capture : bool, default False
        Whether the vectorised gradient is recorded as a CUDA graph and replayed, which saves the
        time in which Python launches kernels: most of a small model's step on a GPU. The loss must
        be the same operations at every step. For parameters on CUDA devices alone.
    store : path, optional
        A folder where everything is kept while it is computed, which
        ``xarray.open_datatree(path, engine="zarr")`` opens at any time. The same call again goes on
        from where it was saved last, once a second at most, and ends with the bits of a run that
        was not interrupted; one that is complete is only read. Any other model, data, loss, setting
        or version is refused. The trace that is returned reads the folder when it is used.
        Needs ``pip install 'fastllc[store]'``.
    progress : bool, default True
        Whether to show a progress bar.
    """

    sampler: Callable[..., torch.optim.Optimizer] = SGLD
    lr: float | Sequence[float] = 1e-4
    nbeta: float | Sequence[float] | None = None
    localization: float | Sequence[float] = 100.0
    noise_level: float = 1.0
    weight_decay: float = 0.0
    bounding_box_size: float | None = None
    mask: Mapping[str, Tensor] | None = None
    num_chains: int = 4
    num_draws: int = 500
    num_burnin_steps: int = 0
    num_steps_bw_draws: int = 1
    batch_size: int | None = None
    replacement: bool = False
    shared_batches: bool = False
    accumulation: int = 1
    autocast: torch.dtype | None = None
    init_loss: Literal["paired", "full"] | float = "paired"
    observables: Mapping[str, Observable | Data] | None = None
    save_metrics: bool = False
    save_acceptance: bool = False
    seed: int | None = None
    common_random_numbers: bool = False
    engine: Literal["auto", "vectorised", "inplace"] = "auto"
    chunk_size: int | None = None
    compile: bool = False
    capture: bool = False
    store: str | PathLike[str] | None = None
    progress: bool = True

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
        """Run all chains; see `sample`.

        Parameters
        ----------
        model, data, loss_fn, evaluate, checkpoints
            As in `sample`.
        watch : callable, optional
            Called at each draw with each chain that moves, ``(checkpoint, setting, chain)``, and
            its distance w - w0, of shape [d].
        spectator : Spectator, optional
            Looks at chains that move together, before and after the step of each draw.
        """
        from fastllc.engine.run import run

        return run(self, model, data, loss_fn, evaluate, checkpoints, watch, spectator)

    def check(self) -> None:
        """Raise TypeError or ValueError for the first setting that is unfit."""
        if not callable(self.sampler):
            raise TypeError(f"sampler must be callable, got {self.sampler!r}")
        checks.each("lr", self.lr, checks.positive)
        checks.each("localization", self.localization, checks.non_negative)
        if self.nbeta is not None:
            checks.each("nbeta", self.nbeta, checks.positive)
        for name in ("noise_level", "weight_decay"):
            checks.non_negative(name, getattr(self, name))
        if self.bounding_box_size is not None:
            checks.positive("bounding_box_size", self.bounding_box_size)
        for name in ("num_chains", "num_draws", "num_steps_bw_draws", "accumulation"):
            checks.integer(name, getattr(self, name), 1)
        checks.integer("num_burnin_steps", self.num_burnin_steps, 0)
        for name in ("batch_size", "chunk_size"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), 1)
        if self.seed is not None:
            checks.integer("seed", self.seed, 0, below=2**63)
        if self.init_loss not in ("full", "paired"):
            checks.finite("init_loss", self.init_loss, 'a finite number, "full" or "paired"')
        if self.engine not in ("auto", "vectorised", "inplace"):
            raise ValueError(
                f"engine must be 'auto', 'vectorised' or 'inplace', got {self.engine!r}"
            )
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(
                f"autocast must be torch.bfloat16, torch.float16 or None, got {self.autocast!r}"
            )
        if self.mask is not None and not isinstance(self.mask, Mapping):
            raise TypeError(f"mask must be tensors by name, got {type(self.mask).__name__}")
        if self.store is not None and not isinstance(self.store, (str, PathLike)):
            raise TypeError(f"store must be a path, got {self.store!r}")
        for name in ("replacement", "shared_batches", "save_metrics", "common_random_numbers"):
            checks.boolean(name, getattr(self, name))
        for name in ("compile", "capture", "progress", "save_acceptance"):
            checks.boolean(name, getattr(self, name))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is kept of the steps of draws."""
        kept = Metrics._fields if self.save_metrics else ()
        return (*kept, "mala_acceptance") if self.save_acceptance else kept

    @property
    def schedule(self) -> Schedule:
        """When what happens."""
        return Schedule(
            self.num_burnin_steps, self.num_draws, self.num_steps_bw_draws, self.accumulation
        )

    def points(self, num_samples: int | None) -> tuple[list[dict[str, float]], bool]:
        """Return the grid of lr, nbeta and localization, and whether it was asked for.

        Raises
        ------
        ValueError
            If nbeta follows from a number of samples that is not known.
        """
        nbeta = self.nbeta
        if nbeta is None:
            if num_samples is None:
                raise ValueError(
                    "nbeta must be given for data that cannot tell their number of samples, "
                    "got None"
                )
            if num_samples < 2:
                raise ValueError("nbeta must be given for data of fewer than 2 samples, got None")
            nbeta = default_nbeta(num_samples)
        given = {"lr": self.lr, "nbeta": nbeta, "localization": self.localization}
        asked = any(isinstance(value, (list, tuple)) for value in given.values())
        points = [{k: float(v) for k, v in point.items()} for point in grid(given)]
        return points, asked

    def make_sampler(
        self, params: Mapping[str, nn.Parameter], key: int, setting: Mapping[str, float]
    ) -> torch.optim.Optimizer:
        """Make the sampler of one chain."""
        asked: dict[str, Any] = {}
        if self.mask is not None:
            unknown = sorted(set(self.mask) - set(params))
            if unknown:
                raise ValueError(
                    f"mask must name parameters of the model that are trained, got {unknown}"
                )
            asked["mask"] = [self.mask.get(name) for name in params]
        if self.save_metrics:
            asked["save_metrics"] = True
        made = self.sampler(
            list(params.values()),
            **setting,
            noise_level=self.noise_level,
            weight_decay=self.weight_decay,
            bounding_box_size=self.bounding_box_size,
            seed=key,
            **asked,
        )
        if self.save_acceptance and not isinstance(made, MALA):
            check_judged(made)
        if self.save_metrics and not isinstance(made, Sampler):
            raise TypeError(
                f"save_metrics must be False for a sampler that keeps none, got True with "
                f"{type(made).__name__}"
            )
        return made


def sample(
    model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
    data: Data,
    loss_fn: LossFn | None = None,
    *,
    evaluate: Evaluate | None = None,
    checkpoints: Sequence[Weights] | Mapping[str, Weights] | None = None,
    **settings: Any,
) -> xr.DataTree:
    """Sample the local posterior of a model, at all checkpoints and settings in one run.

    The model comes back as it was: weights, buffers, gradients, modes and flags. It is sampled in
    the mode it is in. Parameters that do not require a gradient are not sampled. The caller's
    random state is left alone.

    Parameters
    ----------
    model : nn.Module, or a sequence or mapping of them
        The trained model, at a minimum of the loss. Several are checkpoints of one architecture.
    data : (Tensor, Tensor), Dataset or DataLoader
        Inputs and targets of shapes ``[n, ...]``, or a source of batches, which is read afresh
        every epoch.
    loss_fn : callable, optional
        ``loss_fn(outputs, targets)``, for data that come as pairs.
    evaluate : callable, optional
        ``evaluate(model, batch)``, for any other. Either returns the batch mean as a scalar, or one
        loss per sample of shape [batch]. Losses at w* are computed under `torch.no_grad`: one that
        calls `torch.autograd.grad` by itself does so under `torch.enable_grad`.
    checkpoints : sequence or mapping of state dict or nn.Module, optional
        Weights that chains start from, instead of the model's own.
    **settings
        See `Sampling`.

    Returns
    -------
    xarray.DataTree
        The trace. Leading dimensions are ``checkpoint`` and ``setting``, if several were asked for,
        and ``chain``.

        - ``init_loss`` (checkpoint), ``diverged_at`` (..., chain), -1 for a chain that stayed
          finite; coordinates ``lr``, ``nbeta`` and ``localization``; in the attributes settings,
          seed, engine, versions and build, and ``interrupted``: 1 until the run is complete;
        - ``steps/loss`` (..., chain, step), of the minibatch before each step, NaN from a
          divergence on, and ``steps/baseline``, of the same samples at w*, if paired;
        - ``metrics/...`` (..., chain, draw), if kept, and ``metrics/mala_acceptance``;
        - ``observables/<name>/loss`` (..., chain, draw, sample) and ``init_loss``
          (checkpoint, sample).

    Raises
    ------
    TypeError, ValueError
        For settings, data or a loss that cannot be sampled, before anything is changed; for a store
        of another run, with what differs.
    OSError
        If the store cannot be read or written; what was saved there stays.
    DivergenceError
        If no chain stayed finite; its ``trace`` holds what there was.

    Warns
    -----
    DivergenceWarning
        Names the chains that did not stay finite.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> data = torch.randn(100, 2), torch.randn(100, 1)
    >>> trace = sample(
    ...     model, data, nn.functional.mse_loss, lr=[1e-4, 1e-3], num_draws=10, progress=False
    ... )
    >>> dict(trace["steps/loss"].sizes)
    {'setting': 2, 'chain': 4, 'step': 10}
    """
    return Sampling(**settings).run(
        model, data, loss_fn, evaluate=evaluate, checkpoints=checkpoints
    )
