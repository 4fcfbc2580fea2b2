"""fastllc's estimate, and its gradients alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

import fastllc
from bench.end_to_end.runs import FloatArray, Run, timed
from fastllc.bench.problem import Problem
from fastllc.engine.checkpoints import Checkpoints, trainable
from fastllc.engine.inplace import InPlaceWalkers
from fastllc.engine.minibatch import Minibatch
from fastllc.engine.objective import Objective
from fastllc.engine.vectorised import VectorisedWalkers
from fastllc.engine.walkers import Walkers
from fastllc.samplers.stack import blueprint

__all__ = ["gradient", "paired", "run"]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one call."""
    return timed(lambda: np.asarray(_fit(problem, steps, seed, problem.init_loss).llc_chains_))


def paired(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate with the initial losses of the same samples subtracted, as is the default."""
    return timed(lambda: np.asarray(_fit(problem, steps, seed, "paired").llc_chains_))


def gradient(problem: Problem, steps: int, seed: int) -> Run:
    """Time the engine's own gradients of all chains, on one minibatch each."""
    engine = _fit(problem, 2, seed, problem.init_loss).trace_.attrs["engine"]
    shape = (problem.chains, problem.batch_size)
    index = torch.randint(len(problem.x), shape, generator=torch.Generator().manual_seed(seed))
    x, y = problem.x[index], problem.y[index]
    objective, checkpoints = Objective(problem.model, problem.loss), Checkpoints(problem.model)
    params = trainable(problem.model)
    walkers: Sequence[Walkers]
    if engine == "vectorised":
        plan = blueprint(fastllc.SGLD(params.values(), lr=problem.lr))
        chains = range(problem.chains)
        rows, plans = [0 for _ in chains], [plan for _ in chains]
        walkers = [VectorisedWalkers(objective, checkpoints, slice(0, 1), rows, plans, chains)]
        batches = [Minibatch((x, y), None, stacked=True)]
    else:
        sampler = fastllc.SGLD(params.values(), lr=problem.lr)
        walker = InPlaceWalkers(objective, params, sampler, checkpoints[0], seed)
        walkers = [walker] * problem.chains
        batches = [Minibatch(batch, None, stacked=False) for batch in zip(x, y, strict=True)]

    def gradients() -> FloatArray:
        for step in range(steps):
            for each, batch in zip(walkers, batches, strict=True):
                each.gradient([batch], step)
        return np.empty(0)

    found = timed(gradients)
    problem.model.zero_grad()
    return found


def _fit(
    problem: Problem, steps: int, seed: int, init_loss: float | Literal["paired"]
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
        seed=seed,
        progress=False,
    )
    return estimator.fit(problem.model, (problem.x, problem.y), problem.loss)
