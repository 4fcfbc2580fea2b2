"""fastllc's estimate, and its gradients alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

import fastllc
from bench.end_to_end.problems import Problem
from bench.end_to_end.runs import FloatArray, Run, timed

__all__ = ["gradient", "run"]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one call."""
    return timed(lambda: _fit(problem, steps, seed).llc_chains_)


def gradient(problem: Problem, steps: int, seed: int) -> Run:
    """Time forward and backward of all chains on fixed minibatches, the way the engine takes."""
    index = torch.randint(
        len(problem.x),
        (problem.chains, problem.batch_size),
        generator=torch.Generator().manual_seed(seed),
    )
    engine = _fit(problem, 2, seed).trace_.attrs["engine"]
    walk = {"inplace": _in_place, "vectorised": _vectorised}[engine]
    x, y = problem.x[index], problem.y[index]

    def gradients() -> FloatArray:
        walk(problem, x, y, steps)
        return np.empty(0)

    return timed(gradients)


def _fit(problem: Problem, steps: int, seed: int) -> fastllc.LLCEstimator:
    estimator = fastllc.LLCEstimator(
        sampler=fastllc.SGLD,
        lr=problem.lr,
        nbeta=problem.nbeta,
        localization=problem.localization,
        num_chains=problem.chains,
        num_draws=steps - steps // 2,
        num_burnin_steps=steps // 2,
        batch_size=problem.batch_size,
        init_loss=problem.init_loss,
        seed=seed,
        progress=False,
    )
    return estimator.fit(problem.model, (problem.x, problem.y), problem.loss)


def _in_place(problem: Problem, x: Tensor, y: Tensor, steps: int) -> None:
    params = list(problem.model.parameters())
    for _ in range(steps):
        for chain in range(problem.chains):
            torch.autograd.backward(problem.loss(problem.model(x[chain]), y[chain]))
            for p in params:
                p.grad = None


def _vectorised(problem: Problem, x: Tensor, y: Tensor, steps: int) -> None:
    stacked = {
        name: p.detach().expand(problem.chains, *p.shape).clone().requires_grad_()
        for name, p in problem.model.named_parameters()
    }

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return problem.loss(functional_call(problem.model, params, (x,)), y)

    losses = vmap(loss)
    for _ in range(steps):
        torch.autograd.backward(losses(stacked, x, y).sum())
        for p in stacked.values():
            p.grad = None
