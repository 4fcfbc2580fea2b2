"""devinterp 1.3.2's ``estimate_learning_coeff_with_summary``, with its defaults."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

from torch.utils.data import DataLoader, TensorDataset

from bench.end_to_end.problems import Problem
from bench.end_to_end.runs import FloatArray, Run, timed

if version("devinterp") != "1.3.2":
    raise ImportError(f"version {version('devinterp')} is installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary

__all__ = ["estimate", "run"]


def estimate(
    problem: Problem, draws: int, seed: int, *, burnin: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """Return what one call returns; its own sampler ``SGLD`` is the default there."""
    loader = DataLoader(
        TensorDataset(problem.x, problem.y), batch_size=problem.batch_size, shuffle=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Any] = estimate_learning_coeff_with_summary(
            problem.model,
            loader,
            evaluate=lambda model, data: problem.loss(model(data[0]), data[1]),
            optimizer_kwargs={
                "lr": problem.lr,
                "nbeta": problem.nbeta,
                "localization": problem.localization,
            },
            num_draws=draws,
            num_chains=problem.chains,
            num_burnin_steps=burnin,
            init_loss=problem.init_loss,
            device=device,
            seed=seed,
            verbose=False,
        )
    return found


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one call."""
    burnin = steps // 2

    def llc() -> FloatArray:
        found = estimate(problem, steps - burnin, seed, burnin=burnin)
        return problem.llc(found["loss/trace"])

    return timed(llc)
