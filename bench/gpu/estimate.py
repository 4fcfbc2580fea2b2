"""A whole estimate on a GPU: the LLC of an MLP over 64 chains, beside devinterp's."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from time import perf_counter

import torch

from bench.end_to_end.problems import mlp
from bench.rows import Row
from fastllc import Sampling
from fastllc.bench.problem import Problem

__all__ = ["estimate"]

CHAINS = 64
VERSION = "1.3.2"


def estimate(quick: bool) -> list[Row]:
    """Measure a step of all chains, by ours with and without a graph and by devinterp."""
    torch.manual_seed(0)
    problem = replace(mlp(), chains=CHAINS)
    problem.model.to("cuda")
    problem.x, problem.y = problem.x.to("cuda"), problem.y.to("cuda")
    part = f"whole LLC: {problem}, {CHAINS} chains"
    steps = 40 if quick else 2000
    captured, eager = (
        Row(part, name, CHAINS * problem.parameters, 4)
        for name in ("fastllc, graph-captured", "fastllc")
    )
    rows = [captured, eager]
    for row, capture in ((captured, True), (eager, False)):
        _ours(problem, 20, capture)
        for _ in range(1 if quick else 3):
            row.seconds.append(_ours(problem, steps, capture) / steps)
    peer = Row(part, f"devinterp {VERSION}", captured.elements, 4, target=">= 30")
    peer.unit = f"x {captured.name}"
    rows.append(peer)
    try:
        if (found := importlib.metadata.version("devinterp")) != VERSION:
            peer.note = f"version {found} is installed"
            return rows
    except importlib.metadata.PackageNotFoundError:
        peer.note = "not installed"
        return rows
    few = 4 if quick else 20
    _devinterp(problem, few)
    peer.seconds = [_devinterp(problem, few) / few]
    peer.value = peer.seconds[0] / min(captured.seconds)
    return rows


def _ours(problem: Problem, steps: int, capture: bool) -> float:
    sampling = Sampling(
        lr=problem.lr,
        nbeta=problem.nbeta,
        localization=problem.localization,
        num_chains=problem.chains,
        num_draws=steps,
        batch_size=problem.batch_size,
        init_loss=problem.init_loss,
        engine="vectorised",
        chunk_size=problem.chains,
        capture=capture,
        seed=0,
        progress=False,
    )
    torch.cuda.synchronize()
    start = perf_counter()
    sampling.run(problem.model, (problem.x, problem.y), problem.loss)
    torch.cuda.synchronize()
    return perf_counter() - start


def _devinterp(problem: Problem, steps: int) -> float:
    from fastllc.bench.devinterp1 import estimate as estimate_by_devinterp

    torch.cuda.synchronize()
    start = perf_counter()
    estimate_by_devinterp(problem, steps, 0, device="cuda")
    torch.cuda.synchronize()
    return perf_counter() - start
