"""devinterp 1.3.2's ``estimate_learning_coeff_with_summary``, with its defaults."""

from __future__ import annotations

import warnings
from importlib.metadata import version

from torch.utils.data import DataLoader, TensorDataset

from bench.end_to_end.problems import Problem
from bench.end_to_end.runs import FloatArray, Run, timed

if version("devinterp") != "1.3.2":
    raise ImportError(f"version {version('devinterp')} is installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary

__all__ = ["run"]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one call; its own sampler ``SGLD`` is the default there and the fastest."""
    loader = DataLoader(
        TensorDataset(problem.x, problem.y), batch_size=problem.batch_size, shuffle=True
    )

    def estimate() -> FloatArray:
        results = estimate_learning_coeff_with_summary(
            problem.model,
            loader,
            evaluate=lambda model, data: problem.loss(model(data[0]), data[1]),
            optimizer_kwargs={
                "lr": problem.lr,
                "nbeta": problem.nbeta,
                "localization": problem.localization,
            },
            num_draws=steps - steps // 2,
            num_chains=problem.chains,
            num_burnin_steps=steps // 2,
            init_loss=problem.init_loss,
            seed=seed,
            verbose=False,
        )
        return problem.llc(results["loss/trace"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timed(estimate)
