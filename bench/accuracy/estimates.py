"""One estimate of one network, by fastllc or by devinterp 1.3.2, with its error and cost."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import process_time
from typing import Any

import numpy as np

import fastllc
from fastllc.bench.devinterp1 import estimate as devinterp1_estimate
from fastllc.bench.problem import Problem
from fastllc.convergence import ess, interval, rhat
from fastllc.oracles import DeepLinear

__all__ = ["Estimate", "by_devinterp1", "by_fastllc"]


@dataclass(frozen=True)
class Estimate:
    """What an estimate gave and took.

    Attributes
    ----------
    llc, low, high : float
        The estimate and its 95 % interval; NaN if the run failed.
    ess, rhat : float
        Effective sample size of all draws; R-hat, of a single chain that of its halves.
    seconds : float
        Processor time of the whole call, of all threads: with one, what it takes where nothing
        else runs.
    error : str
        What was raised; or empty.
    """

    llc: float = math.nan
    low: float = math.nan
    high: float = math.nan
    ess: float = math.nan
    rhat: float = math.nan
    seconds: float = math.nan
    error: str = ""


def by_fastllc(oracle: DeepLinear, settings: dict[str, Any], seed: int) -> Estimate:
    """Estimate by `fastllc.LLCEstimator`."""

    def estimate() -> dict[str, float]:
        estimator = fastllc.LLCEstimator(**settings, seed=seed, progress=False)
        estimator.fit(oracle.model, oracle.data, oracle.loss_fn)
        (low, high), found = np.asarray(estimator.llc_interval_), fastllc.llc(estimator.trace_)
        named = {"low": float(low), "high": float(high), "ess": float(found["ess_bulk"])}
        return {"llc": float(found["llc"]), "rhat": float(found["rhat"]), **named}

    return _timed(estimate)


def by_devinterp1(oracle: DeepLinear, settings: dict[str, Any], seed: int) -> Estimate:
    """Estimate by devinterp's ``estimate_learning_coeff_with_summary``.

    Raises
    ------
    ImportError
        If devinterp 1.3.2 is not what is installed.
    """
    if version("devinterp") != "1.3.2":
        raise ImportError(f"devinterp {version('devinterp')} is installed")
    x, y = oracle.data.tensors
    burnin, draws = settings["num_burnin_steps"], settings["num_draws"]
    problem = Problem(
        oracle.name,
        oracle.model,
        x,
        y,
        oracle.loss_fn,
        batch_size=settings["batch_size"],
        chains=settings["num_chains"],
        lr=settings["lr"],
        localization=settings["localization"],
        steps=burnin + draws,
        devinterp_steps=burnin + draws,
    )
    problem.nbeta = settings["nbeta"]  # of the published number of samples

    def estimate() -> dict[str, float]:
        found = devinterp1_estimate(problem, draws, seed, burnin=burnin)
        losses = np.asarray(found["loss/trace"], dtype=np.float64)
        values = problem.nbeta * (losses - problem.init_loss)
        low, high = interval(values)
        named = {"low": low, "high": high, "ess": ess(values), "rhat": rhat(values)}
        return {"llc": float(values.mean()), **named}

    return _timed(estimate)


def _timed(estimate: Callable[[], dict[str, float]]) -> Estimate:
    start, found, error = process_time(), {}, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastllc.DivergenceWarning)
            found = estimate()
    except (ArithmeticError, RuntimeError, ValueError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    return Estimate(**found, seconds=process_time() - start, error=error)
