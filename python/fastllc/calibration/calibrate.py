"""Settings for an estimate, from a grid of chains that run as one job."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from fastllc import checks
from fastllc.calibration.choice import NUM_CHAINS, choose, num_draws
from fastllc.calibration.judge import Pilot, judge
from fastllc.calibration.result import Calibration
from fastllc.engine.checkpoints import trainable
from fastllc.engine.curvature import largest_curvature
from fastllc.engine.data import Data, open_data
from fastllc.engine.objective import Evaluate, LossFn
from fastllc.engine.sampling import Sampling
from fastllc.errors import DivergenceError, DivergenceWarning
from fastllc.estimators.traces import excess_loss
from fastllc.samplers.momentum import BAOAB
from fastllc.seeds import chain_key

__all__ = ["calibrate"]

# Step sizes are in units of 1 / S, where S = nbeta h and h is the largest curvature: chains on a
# quadratic of that curvature are stable below 4, and where weights wander off a singular minimum
# curvatures grow. Localizations are in units of the cube root of S: a product of three weights of
# size delta changes U by S delta^6. At 0.01 to 0.1 chains left the neighbourhood of the minimum
# within 10,000 steps on 9 of 14 deep linear networks; in units of S, four of 17 saw little of the
# products.
STEPS = (0.0128, 0.032, 0.08, 0.2)
LOCALIZATIONS = (0.15, 0.375, 0.94, 2.3)
# A weight without loss has half the variance that the weakest localization leaves it after
# ln(2) / 2 friction / (lr localization) = 0.87 S^(2/3) steps, at the third step size.
SPREADING = 0.87
MIN_STEPS, MAX_STEPS = 3000, 16_000
_PILOT = 2**64 - 2  # the number of a chain that nobody is: pilots are none of the run to come
FOUND = frozenset({"lr", "localization", "num_chains", "num_draws", "num_burnin_steps"})
NOT_PILOTS = frozenset(
    {"store", "observables", "save_metrics", "save_acceptance", "num_steps_bw_draws"}
)


def calibrate(
    model: nn.Module,
    data: Data,
    loss_fn: LossFn | None = None,
    *,
    evaluate: Evaluate | None = None,
    sem: float = 0.02,
    **settings: Any,
) -> Calibration:
    r"""Find step size, localization, burn-in and number of draws by a pilot run.

    Chains over a grid of `lr` and `localization`, scaled by the largest curvature h of the loss,
    run as one vectorised job. A setting can be trusted if its chain did not diverge, the loss is
    flat along the second half of it (to 5 %, or within its error), and the LLC does not depend on
    the step size: what steps 2.5 times as long add to it, divided by 1.5, is at most 12 % (or
    within its error). Errors excuse 25 % at most. Nor may steps 2.5 times as short, if their chain
    has spread, take off more than 15 %.

    Before weights have spread along flat directions, the loss is flat too, and too small: where
    only products of several weights change it, it comes to count last. So of the trusted settings
    those count whose configurational temperature is 0.5 or more, if there are any. Of these the
    weakest localization is taken, since localization takes away from the LLC what it keeps chains
    from seeing, and of its step sizes the largest whose bias is below 5 %, or that of the smallest
    bias and error. A stronger localization is better only if these are smaller by more than the LLC
    changes. Chains are as long as it takes to spread, 0.87 (nbeta h)^(2/3) steps, from 3000 to
    16,000.

    The bias that is measured is what a Metropolis test's acceptance is asked for elsewhere. Draws
    are as many as the pilot's standard error says that `sem` takes, from 4500, or the length of the
    pilot, to 30,000.

    Parameters
    ----------
    model, data, loss_fn, evaluate
        As in `fastllc.sample`.
    sem : float, default 0.02
        Standard error of the LLC to aim at, as a share of it, > 0.
    **settings
        Of `Sampling`, all but those that are found here. Of several `nbeta` it takes the largest at
        which a setting can be trusted. `sampler` is `BAOAB` with friction 0.03 by default: momentum
        carries chains along flat directions, and on quadratics its steps have no bias.

    Returns
    -------
    Calibration
        ``settings`` are for `LLCEstimator`; printed, it gives its reasons.

    Raises
    ------
    TypeError, ValueError
        If an argument is unfit, or a setting is given that is found here.

    References
    ----------
    Lau et al. 2023, arXiv 2308.12108, appendix on hyperparameters; Leimkuhler & Matthews 2013,
    Applied Mathematics Research eXpress (BAOAB).

    Examples
    --------
    >>> from fastllc import oracles
    >>> oracle = oracles.quadratic([1.0, 0.5], n_samples=100)
    >>> found = calibrate(
    ...     oracle.model, oracle.data, oracle.loss_fn, nbeta=1e3, seed=0, progress=False
    ... )
    >>> abs(found.chosen.llc - 1.0) < 3 * found.chosen.sem
    True
    """
    sem = checks.positive("sem", sem)
    for name in sorted((FOUND | NOT_PILOTS) & settings.keys()):
        raise ValueError(f"{name} must be left to calibrate, got {settings[name]!r}")
    settings.setdefault("sampler", partial(BAOAB, friction=0.03))
    sampling = Sampling(**settings)
    sampling.check()
    curvature = largest_curvature(model, data, loss_fn, evaluate=evaluate, mask=sampling.mask)
    if not (math.isfinite(curvature) and curvature > 0):
        raise ValueError(
            f"the loss must be curved at the model's weights, got curvature {curvature:.3g} at most"
        )
    num_samples = open_data(data, sampling.batch_size, torch.device("cpu")).num_samples
    nbetas = {point["nbeta"] for point in sampling.points(num_samples)[0]}
    for nbeta in sorted(nbetas, reverse=True):
        num_steps, pilot = _pilot(sampling, nbeta, curvature)
        trace = _run(pilot, model, data, loss_fn, evaluate)
        pilots = _judged(trace, nbeta, _num_weights(model, sampling))
        chosen = choose(pilots)
        if chosen is not None:
            break
    draws, capped = num_draws(chosen, num_steps, sem)
    return Calibration(
        sampling.sampler,
        nbeta,
        curvature,
        pilots,
        chosen,
        NUM_CHAINS,
        num_steps,
        draws,
        sem,
        capped,
    )


def _pilot(sampling: Sampling, nbeta: float, curvature: float) -> tuple[int, Sampling]:
    """Return the number of steps at a temperature, and the run over the grid."""
    scale = nbeta * curvature
    num_steps = int(min(max(SPREADING * scale ** (2 / 3), MIN_STEPS), MAX_STEPS))
    return num_steps, replace(
        sampling,
        lr=[step / scale for step in STEPS],
        localization=[strength * scale ** (1 / 3) for strength in LOCALIZATIONS],
        nbeta=nbeta,
        num_chains=1,
        num_draws=num_steps,
        seed=None if sampling.seed is None else chain_key(sampling.seed, _PILOT) // 2,
        save_metrics=True,
    )


def _run(
    pilot: Sampling,
    model: nn.Module,
    data: Data,
    loss_fn: LossFn | None,
    evaluate: Evaluate | None,
) -> xr.DataTree:
    """Run the grid; a setting at which all chains diverge ends nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        trace: xr.DataTree | None
        try:
            trace = pilot.run(model, data, loss_fn, evaluate=evaluate)
        except DivergenceError as error:
            trace = error.trace
    assert trace is not None  # the engine's errors have one
    if trace.attrs["interrupted"]:  # half a pilot says nothing
        raise KeyboardInterrupt
    return trace


def _num_weights(model: nn.Module, sampling: Sampling) -> int:
    masks = sampling.mask or {}
    return sum(
        int(masks[name].expand(p.shape).count_nonzero()) if name in masks else p.numel()
        for name, p in trainable(model).items()
    )


def _judged(trace: xr.DataTree, nbeta: float, weights: int) -> tuple[Pilot, ...]:
    """Judge all settings of a trace, a localization after the other."""
    excess = nbeta * excess_loss(trace).values
    excess[trace.dataset["diverged_at"].values >= 0] = np.nan
    metrics = trace["metrics"].to_dataset()
    lr, localization = (np.asarray(trace.coords[name].values) for name in ("lr", "localization"))
    last = slice(-(excess.shape[2] // 4), None)
    work = metrics["virial"] + trace.coords["localization"] * metrics["distance"] ** 2
    temperatures = work.transpose("setting", "chain", "draw").values[:, :, last] / weights
    pilots: list[Pilot] = []
    for strength in np.unique(localization):
        (rows,) = np.nonzero(localization == strength)
        rows = rows[np.argsort(lr[rows])]
        pilots += judge(
            lr[rows].tolist(), float(strength), excess[rows], temperatures[rows].mean(axis=(1, 2))
        )
    return tuple(pilots)
