"""One chain as devinterp 1 runs it, in place on a copy of the model, with a fused sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fastllc.compat.devinterp1.optim.sgld import SGLD
from fastllc.compat.devinterp1.samples import minibatches
from fastllc.compat.devinterp1.slt.mala import MalaAcceptanceRate
from fastllc.compat.devinterp1.slt.norms import NoiseNorm
from fastllc.compat.devinterp1.utils import EvaluateFn, prepare_input, split_results
from fastllc.engine.checkpoints import trainable
from fastllc.engine.loop import Schedule
from fastllc.errors import DivergenceWarning

__all__ = ["make_optimizer", "sample_single_chain"]


def make_optimizer(
    sampling_method: Callable[..., torch.optim.Optimizer],
    model: nn.Module,
    optimizer_kwargs: dict[str, Any],
    optimize_over: dict[str, Tensor] | None,
    callbacks: Sequence[Callable[..., Any]] = (),
) -> torch.optim.Optimizer:
    """Make the sampler of a chain, one that tells what its callbacks ask of it.

    Parameters
    ----------
    sampling_method : callable
        Called with parameters or groups of them, and `optimizer_kwargs`.
    model : nn.Module
        Whose parameters are sampled, those that require a gradient.
    optimizer_kwargs : dict
        Settings; ``nbeta`` among them.
    optimize_over : dict of str to Tensor, optional
        1 where a weight is sampled, for all parameters by name.
    callbacks : sequence of callable
        Those that are called with the sampler.
    """
    if "nbeta" not in optimizer_kwargs:
        raise AssertionError("Set nbeta in optimizer_kwargs")
    metrics = list(optimizer_kwargs.get("metrics") or ())
    if any(isinstance(callback, MalaAcceptanceRate) for callback in callbacks):
        metrics += ["dws", "localization_loss"]
    if any(isinstance(callback, NoiseNorm) for callback in callbacks):
        metrics += ["noise"]
    given = {**optimizer_kwargs, "metrics": metrics} if metrics else optimizer_kwargs
    params = trainable(model)
    if not optimize_over:
        return sampling_method(list(params.values()), **given)
    groups = [
        {"params": [param], "optimize_over": optimize_over[name].to(param.device)}
        for name, param in params.items()
    ]
    return sampling_method(groups, **given)


def sample_single_chain(
    ref_model: nn.Module,
    loader: DataLoader[Any],
    evaluate: EvaluateFn,
    optimizer_kwargs: dict[str, Any],
    num_draws: int = 100,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    grad_accum_steps: int = 1,
    sampling_method: Callable[..., torch.optim.Optimizer] = SGLD,
    chain: int = 0,
    seed: int | None = None,
    verbose: bool = True,
    device: torch.device | str = "cpu",
    optimize_over_per_model_param: dict[str, Tensor] | None = None,
    callbacks: Sequence[Callable[..., Any]] = (),
    use_amp: bool = False,
    **kwargs: Any,
) -> int | None:
    """Run one chain; see `sample`.

    Callbacks are called with all these arguments by name, and with ``model`` and ``optimizer``
    after the step of the draw, ``loss`` before it, ``draw``, ``data`` and ``results`` of the last
    minibatch, its number ``i``, ``num_steps``, ``cumulative_loss`` and ``pbar``.

    Returns
    -------
    int or None
        The draw at which the loss was not a number, where the chain ended; None: it did not.
    """
    device = torch.device(device)
    schedule = Schedule(num_burnin_steps, num_draws, num_steps_bw_draws, grad_accum_steps)
    model = deepcopy(ref_model).to(device)
    optimizer = make_optimizer(
        sampling_method, model, optimizer_kwargs, optimize_over_per_model_param, callbacks
    )
    if seed is not None:
        torch.manual_seed(int(seed))
    known = {
        **kwargs,
        "kwargs": kwargs,
        "ref_model": ref_model,
        "loader": loader,
        "evaluate": evaluate,
        "optimizer_kwargs": optimizer_kwargs,
        "num_draws": num_draws,
        "num_burnin_steps": num_burnin_steps * grad_accum_steps,
        "num_steps_bw_draws": num_steps_bw_draws * grad_accum_steps,
        "num_steps": schedule.num_steps * grad_accum_steps,
        "grad_accum_steps": grad_accum_steps,
        "sampling_method": sampling_method,
        "chain": chain,
        "seed": seed,
        "verbose": verbose,
        "device": device,
        "optimize_over_per_model_param": optimize_over_per_model_param,
        "callbacks": callbacks,
        "use_amp": use_amp,
        "model": model,
        "optimizer": optimizer,
    }
    batches = (batch for _ in count() for batch in minibatches(loader))
    bar = tqdm(desc=f"Chain {chain}", total=schedule.num_steps, disable=not verbose)
    with bar as pbar, warnings.catch_warnings():
        # `sample` says which chains were lost.
        warnings.simplefilter("ignore", DivergenceWarning)
        for step in range(schedule.num_steps):
            loss = torch.zeros((), device=device)
            for data in islice(batches, grad_accum_steps):
                model.train()
                data = prepare_input(data, device)
                with torch.autocast(device.type, torch.float16, enabled=use_amp):
                    part, results = split_results(evaluate(model, data))
                    part = part / grad_accum_steps
                    torch.autograd.backward(part)
                loss = loss + part.detach()
            optimizer.step()
            draw = schedule.draw(step)
            if draw is not None and loss.isnan().any():
                return draw
            if draw is not None:
                known.update(
                    draw=draw,
                    loss=loss,
                    cumulative_loss=loss,
                    data=data,
                    results=results,
                    i=(step + 1) * grad_accum_steps - 1,
                    pbar=pbar,
                )
                with torch.no_grad():
                    for callback in callbacks:
                        callback(**known)
            optimizer.zero_grad()
            pbar.update(1)
    return None
