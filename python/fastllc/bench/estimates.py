"""Whole estimates of the LLC in turn: ours, pure PyTorch's and devinterp 1's."""

from __future__ import annotations

import copy
import importlib.metadata
import math
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from fastllc.bench import devinterp1
from fastllc.bench.comparison import COMPILED, DEVINTERP, LOOP, OURS, OURS_COMPILED, Comparison
from fastllc.bench.problem import Problem
from fastllc.bench.pure import Uncompiled, compiled
from fastllc.bench.timing import Call, clocked, interleave
from fastllc.engine.compiled import Compiled
from fastllc.estimators.llc import LLCEstimator
from fastllc.peers import TorchSGLD
from fastllc.samplers.sgld import SGLD

__all__ = ["compare_estimates"]

VMAP = "torch vmap"

Floats = NDArray[np.floating]
Estimate = Callable[[int], Floats]  # from a seed to the LLC of each chain


def compare_estimates(problem: Problem, steps: int, rounds: int) -> Comparison:
    """Measure whole estimates in turn, the round as seed; the second half of the steps counts.

    Parameters
    ----------
    problem : Problem
        What to estimate; where its data are, all of it is done.
    steps : int
        Of each chain.
    rounds : int
        How often; one more before them is not kept.

    Returns
    -------
    Comparison
        `llc` has mean and standard error over the chains of all rounds.
    """
    found = Comparison("whole LLC", f"{problem.name}, {problem.chains} chains, {steps:,} steps")
    estimates: dict[str, Estimate] = {
        OURS: partial(_ours, problem, steps),
        VMAP: partial(_vmap, problem, steps),
        LOOP: partial(_chain_by_chain, problem, steps),
    }
    compiling: list[float] = []
    try:
        _ours_compiled(problem, 2, [], 0)
        estimates[OURS_COMPILED] = partial(_ours_compiled, problem, steps, compiling)
    except ValueError as error:
        found.missing[OURS_COMPILED] = str(error)
    start = perf_counter()
    try:
        update = compiled(_update(problem), *_start(problem), problem.x, problem.y, _rows(problem))
        estimates[COMPILED] = partial(_compiled, problem, steps, update)
        found.compile_seconds[COMPILED] = perf_counter() - start
    except Uncompiled as error:
        found.missing[COMPILED] = str(error)
    try:
        version = importlib.metadata.version("devinterp")
        if version.startswith("1."):
            estimates[DEVINTERP] = partial(_devinterp, problem, steps)
        else:
            found.missing[DEVINTERP] = f"not in {version}"
    except importlib.metadata.PackageNotFoundError:
        found.missing[DEVINTERP] = "not installed"
    chains: dict[str, list[Floats]] = {name: [] for name in estimates}
    calls = {
        name: Call(partial(_keep, chains[name], estimate, problem))
        for name, estimate in estimates.items()
    }
    found.seconds = interleave(calls, rounds)
    if compiling:
        pairs = zip(found.seconds[OURS_COMPILED], compiling[1:], strict=True)
        found.seconds[OURS_COMPILED] = [whole - part for whole, part in pairs]
        found.compile_seconds[OURS_COMPILED] = float(np.median(compiling))
    for name, llcs in chains.items():
        each = np.concatenate(llcs[1:])
        found.llc[name] = float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))
    return found


def _keep(kept: list[Floats], estimate: Estimate, problem: Problem) -> None:
    kept.append(estimate(len(kept)))
    if problem.x.is_cuda:
        torch.cuda.synchronize()


def _ours(problem: Problem, steps: int, seed: int, *, compile: bool = False) -> Floats:
    estimator = LLCEstimator(
        sampler=SGLD,
        lr=problem.lr,
        nbeta=problem.nbeta,
        localization=problem.localization,
        num_chains=problem.chains,
        num_draws=steps - steps // 2,
        num_burnin_steps=steps // 2,
        batch_size=problem.batch_size,
        init_loss=problem.init_loss,
        capture=problem.x.is_cuda,
        compile=compile,
        seed=seed,
        progress=False,
    )
    return np.asarray(
        estimator.fit(problem.model, (problem.x, problem.y), problem.loss).llc_chains_
    )


def _ours_compiled(problem: Problem, steps: int, compiling: list[float], seed: int) -> Floats:
    """Estimate with a compiled gradient; tell how long it took to compile."""
    with clocked(Compiled, "_compile") as seconds:
        llc = _ours(problem, steps, seed, compile=True)
    compiling.append(sum(seconds))
    return llc


def _judge(problem: Problem, losses: list[Tensor]) -> Floats:
    """Return the LLC of each chain from the losses of all steps, each [chains]."""
    return problem.llc(torch.stack(losses[len(losses) // 2 :], dim=1).cpu().numpy())


def _rows(problem: Problem) -> Tensor:
    """Draw the samples of a step, [chains, batch]: with replacement, which costs least."""
    shape = problem.chains, problem.batch_size
    return torch.randint(len(problem.x), shape, device=problem.x.device)


def _chain_by_chain(problem: Problem, steps: int, seed: int) -> Floats:
    """Estimate by the loop that everybody writes first, but with the best sampler."""
    torch.manual_seed(seed)
    chains = []
    for chain in range(problem.chains):
        model = copy.deepcopy(problem.model)
        sampler = _sampler(problem, list(model.parameters()), seed * problem.chains + chain)
        losses = []
        for _ in range(steps):
            rows = torch.randint(len(problem.x), (problem.batch_size,), device=problem.x.device)
            sampler.zero_grad()
            loss = problem.loss(model(problem.x[rows]), problem.y[rows])
            torch.autograd.backward(loss)
            sampler.step()
            losses.append(loss.detach())
        chains.append(torch.stack(losses))
    return _judge(problem, list(torch.stack(chains, dim=1)))


def _vmap(problem: Problem, steps: int, seed: int) -> Floats:
    """Estimate with all chains in one vmapped forward pass and one backward pass of its sum.

    Against ``vmap(grad_and_value(...))`` this takes 0.7 of the time.
    """
    torch.manual_seed(seed)
    names = [name for name, _ in problem.model.named_parameters()]
    w = [p.detach().expand(problem.chains, *p.shape) for p in problem.model.parameters()]
    w = [p.clone().requires_grad_() for p in w]
    sampler = _sampler(problem, w, seed)

    def loss(w: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        weights = dict(zip(names, w, strict=True))
        return problem.loss(functional_call(problem.model, weights, (x,)), y)

    each, losses = vmap(loss), []
    for _ in range(steps):
        rows = _rows(problem)
        found = each(w, problem.x[rows], problem.y[rows])
        for p, grad in zip(w, torch.autograd.grad(found.sum(), w), strict=True):
            p.grad = grad
        sampler.step()
        losses.append(found.detach())
    return _judge(problem, losses)


def _sampler(problem: Problem, w: list[Tensor], seed: int) -> TorchSGLD:
    return TorchSGLD(
        w, problem.lr, nbeta=problem.nbeta, localization=problem.localization, seed=seed
    )


Weights = dict[str, Tensor]


def _start(problem: Problem) -> tuple[Weights, Weights]:
    w0 = {name: p.detach() for name, p in problem.model.named_parameters()}
    return {name: p.expand(problem.chains, *p.shape).clone() for name, p in w0.items()}, w0


def _update(problem: Problem) -> Callable[..., tuple[Weights, Tensor]]:
    """Return the whole step of all chains as one function, which torch.compile can fuse."""
    lr, nbeta, localization = problem.lr, problem.nbeta, problem.localization

    def loss(w: Weights, x: Tensor, y: Tensor) -> Tensor:
        return problem.loss(functional_call(problem.model, w, (x,)), y)

    gradients = vmap(grad_and_value(loss))

    def update(
        w: Weights, w0: Weights, x: Tensor, y: Tensor, rows: Tensor
    ) -> tuple[Weights, Tensor]:
        grads, losses = gradients(w, x[rows], y[rows])
        return {
            name: p
            - lr / 2 * (nbeta * grads[name] + localization * (p - w0[name]))
            + math.sqrt(lr) * torch.randn_like(p)
            for name, p in w.items()
        }, losses

    return update


@torch.no_grad()
def _compiled(
    problem: Problem, steps: int, update: Callable[..., tuple[Weights, Tensor]], seed: int
) -> Floats:
    torch.manual_seed(seed)
    w, w0 = _start(problem)
    losses = []
    for _ in range(steps):
        w, found = update(w, w0, problem.x, problem.y, _rows(problem))
        losses.append(found)
    return _judge(problem, losses)


def _devinterp(problem: Problem, steps: int, seed: int) -> Floats:
    burnin, device = steps // 2, str(problem.x.device)
    found = devinterp1.estimate(problem, steps - burnin, seed, burnin=burnin, device=device)
    return problem.llc(found["loss/trace"])
