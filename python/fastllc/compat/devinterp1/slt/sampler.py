"""Learning coefficients by one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastllc.compat.devinterp1.backends.default.slt.sampler import sample
from fastllc.compat.devinterp1.optim.sgld import SGLD
from fastllc.compat.devinterp1.slt.llc import LLCEstimator, OnlineLLCEstimator
from fastllc.compat.devinterp1.utils import EvaluateFn, default_nbeta, get_init_loss_multi_batch
from fastllc.errors import warn

__all__ = ["estimate_learning_coeff", "estimate_learning_coeff_with_summary", "sample"]


def estimate_learning_coeff_with_summary(
    model: nn.Module,
    loader: DataLoader[Any],
    callbacks: Sequence[Callable[..., Any]] = (),
    evaluate: EvaluateFn | None = None,
    sampling_method: Callable[..., torch.optim.Optimizer] = SGLD,
    optimizer_kwargs: dict[str, Any] | None = None,
    num_draws: int = 100,
    num_chains: int = 10,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    init_loss: Any = None,
    grad_accum_steps: int = 1,
    cores: int | Sequence[Any] | None = 1,
    seed: int | Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    gpu_idxs: list[int] | None = None,
    verbose: bool = True,
    optimize_over_per_model_param: dict[str, Tensor] | None = None,
    online: bool = False,
    use_amp: bool = False,
) -> dict[str, Any]:
    """Estimate the local learning coefficient, with the callbacks' results beside it.

    Parameters
    ----------
    online : bool
        Whether `OnlineLLCEstimator` estimates, which keeps what each draw amounts to.
    model, loader, callbacks, evaluate, sampling_method, optimizer_kwargs, num_draws, num_chains,
    num_burnin_steps, num_steps_bw_draws, init_loss, grad_accum_steps, cores, seed, device,
    gpu_idxs, verbose, optimize_over_per_model_param, use_amp
        As in `sample`; without ``nbeta`` in `optimizer_kwargs` it is `default_nbeta` of the loader.

    Returns
    -------
    dict
        The results of the estimator and of all callbacks.

    Raises
    ------
    ValueError
        If ``nbeta`` and its older name ``temperature`` are both set.

    Examples
    --------
    >>> import warnings
    >>> from fastllc.compat.devinterp1.utils import evaluate_mse
    >>> data = torch.utils.data.TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     results = estimate_learning_coeff_with_summary(
    ...         nn.Linear(2, 1),
    ...         DataLoader(data, 32, shuffle=True),
    ...         evaluate=evaluate_mse,
    ...         optimizer_kwargs={"lr": 1e-4},
    ...         num_draws=5,
    ...         num_chains=2,
    ...         verbose=False,
    ...     )
    >>> sorted(results)
    ['llc-chain/0', 'llc-chain/1', 'llc/mean', 'llc/std', 'loss/trace']
    """
    model.to(device)
    settings = dict(optimizer_kwargs or {})
    if {"nbeta", "temperature"} <= settings.keys():
        raise ValueError("optimizer_kwargs must have one of nbeta and temperature, got both")
    if "temperature" in settings:
        warn("Temperature is deprecated: its name is nbeta, here and in callbacks.")
        settings["nbeta"] = settings.pop("temperature")
    elif "nbeta" in settings:
        warn("Using passed in nbeta. Callbacks should have the same.")
    else:
        warn("nbeta not set - using default nbeta.")
        settings["nbeta"] = default_nbeta(loader, grad_accum_steps)
    if init_loss is None:
        batches = num_chains * grad_accum_steps
        init_loss = get_init_loss_multi_batch(
            loader, batches, model, evaluate or (lambda model, data: model(data)), device
        )
    estimator = OnlineLLCEstimator if online else LLCEstimator
    made = estimator(num_chains, num_draws, init_loss, device=device, nbeta=settings["nbeta"])
    return sample(
        model,
        loader,
        [made, *callbacks],
        evaluate,
        sampling_method,
        settings,
        num_draws,
        num_chains,
        num_burnin_steps,
        num_steps_bw_draws,
        init_loss,
        grad_accum_steps,
        cores,
        seed,
        device,
        verbose,
        optimize_over_per_model_param,
        gpu_idxs,
        use_amp=use_amp,
    )


def estimate_learning_coeff(
    model: nn.Module,
    loader: DataLoader[Any],
    callbacks: Sequence[Callable[..., Any]] = (),
    evaluate: EvaluateFn | None = None,
    sampling_method: Callable[..., torch.optim.Optimizer] = SGLD,
    optimizer_kwargs: dict[str, Any] | None = None,
    num_draws: int = 100,
    num_chains: int = 10,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    init_loss: Any = None,
    grad_accum_steps: int = 1,
    cores: int | Sequence[Any] | None = 1,
    seed: int | Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    verbose: bool = True,
    optimize_over_per_model_param: dict[str, Tensor] | None = None,
) -> float:
    """Estimate the local learning coefficient; see `estimate_learning_coeff_with_summary`.

    Returns
    -------
    float
        Its mean over chains.
    """
    results = estimate_learning_coeff_with_summary(
        model,
        loader,
        callbacks,
        evaluate,
        sampling_method,
        optimizer_kwargs,
        num_draws,
        num_chains,
        num_burnin_steps,
        num_steps_bw_draws,
        init_loss,
        grad_accum_steps,
        cores,
        seed,
        device,
        None,
        verbose,
        optimize_over_per_model_param,
    )
    found: float = results["llc/mean"]
    return found
