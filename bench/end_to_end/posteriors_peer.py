"""posteriors' SGLD, its chains by vmap."""

from __future__ import annotations

import warnings
from itertools import islice

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from bench.end_to_end.runs import FloatArray, Run, shuffled, timed
from fastllc.bench.problem import Problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import posteriors

__all__ = ["run"]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by a loop over the vmapped update."""
    w0 = {name: p.detach() for name, p in problem.model.named_parameters()}

    def log_posterior(params: dict[str, Tensor], batch: Tensor) -> tuple[Tensor, Tensor]:
        x, y = problem.x[batch], problem.y[batch]
        loss = problem.loss(functional_call(problem.model, params, (x,)), y)
        distance = sum(((p - w0[name]) ** 2).sum() for name, p in params.items())
        return -problem.nbeta * loss - problem.localization / 2 * distance, loss.detach()

    def estimate() -> FloatArray:
        torch.manual_seed(seed)
        # Its step is lr grad + sqrt(2 lr) noise.
        sgld = posteriors.sgmcmc.sgld.build(log_posterior, lr=problem.lr / 2)
        update = vmap(sgld.update, randomness="different")
        state = vmap(sgld.init)({k: p.expand(problem.chains, *p.shape) for k, p in w0.items()})
        losses = []
        for batch in islice(shuffled(problem, seed), steps):
            state, loss = update(state, torch.from_numpy(batch))
            losses.append(loss)
        return problem.llc(torch.stack(losses[steps // 2 :], dim=1).numpy())

    return timed(estimate)
