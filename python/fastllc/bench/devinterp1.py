"""A whole estimate by devinterp 1."""

from __future__ import annotations

import warnings
from typing import Any

from torch.utils.data import DataLoader, TensorDataset

from fastllc.bench.problem import Problem

__all__ = ["estimate"]


def estimate(
    problem: Problem, draws: int, seed: int, *, burnin: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """Return what one call returns; its own sampler ``SGLD`` is the default there.

    Parameters
    ----------
    problem : Problem
        What to estimate, and with which settings.
    draws, burnin : int
        Steps of each chain that are kept, and before them.
    seed : int
        Of the first chain.
    device : str
        Where the model goes.

    Raises
    ------
    ImportError
        If there is no devinterp 1.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from devinterp.slt.sampler import estimate_learning_coeff_with_summary
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
