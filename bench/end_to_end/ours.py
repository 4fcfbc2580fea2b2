"""fastllc's estimate, and the time of its gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal
from unittest.mock import patch

import numpy as np
import torch
from torch._inductor import config as inductor

import fastllc
from bench.end_to_end.runs import Run, timed
from fastllc.bench.problem import Problem
from fastllc.bench.timing import clocked
from fastllc.engine import products
from fastllc.engine.compiled import Compiled
from fastllc.engine.inplace import InPlaceWalkers
from fastllc.engine.vectorised import VectorisedWalkers

__all__ = ["compiled", "gradient", "multiplied_by_torch", "paired", "run"]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one call."""
    return timed(lambda: np.asarray(_fit(problem, steps, seed, problem.init_loss).llc_chains_))


def paired(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate with the initial losses of the same samples subtracted, as is the default."""
    return timed(lambda: np.asarray(_fit(problem, steps, seed, "paired").llc_chains_))


def compiled(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate with a compiled gradient, compiled anew."""
    torch.compiler.reset()
    with inductor.patch(fx_graph_cache=False), clocked(Compiled, "_compile") as compiling:
        fit = partial(_fit, problem, steps, seed, problem.init_loss, compile=True)
        found = timed(lambda: np.asarray(fit().llc_chains_))
    seconds = sum(compiling)
    return replace(found, seconds=found.seconds - seconds, compile_seconds=seconds)


def gradient(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate, and tell how much of the time the engine's gradients took."""
    with (
        clocked(VectorisedWalkers, "gradient") as stacked,
        clocked(InPlaceWalkers, "gradient") as in_place,
    ):
        found = run(problem, steps, seed)
    return replace(found, seconds=sum(stacked + in_place))


def multiplied_by_torch(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate with no matrix product by oneDNN."""
    with patch.object(products, "_halved", lambda: False):
        return run(problem, steps, seed)


def _fit(
    problem: Problem,
    steps: int,
    seed: int,
    init_loss: float | Literal["paired"],
    *,
    compile: bool = False,
) -> fastllc.LLCEstimator:
    estimator = fastllc.LLCEstimator(
        sampler=fastllc.SGLD,
        lr=problem.lr,
        nbeta=problem.nbeta,
        localization=problem.localization,
        num_chains=problem.chains,
        num_draws=steps - steps // 2,
        num_burnin_steps=steps // 2,
        batch_size=problem.batch_size,
        init_loss=init_loss,
        compile=compile,
        seed=seed,
        progress=False,
    )
    return estimator.fit(problem.model, (problem.x, problem.y), problem.loss)
