"""Many chains on one model, which comes back as it was."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastllc.engine.batches import Batches
from fastllc.engine.chain import Chain, run_chain
from fastllc.engine.objective import Objective
from fastllc.engine.rng import seeded_rng
from fastllc.engine.snapshot import preserved
from fastllc.seeds import chain_key

__all__ = ["initial_loss", "run_chains", "trainable"]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of `model` that are sampled: those that require a gradient.

    Raises
    ------
    TypeError, ValueError
        If `model` is no module or has no such parameter.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        raise ValueError("model must have a parameter that requires a gradient, got none")
    return params


def initial_loss(
    model: nn.Module, objective: Objective, batches: Batches, seed: int, given: float | None = None
) -> float:
    """Check the loss on a first minibatch, and average it over all data unless it is `given`.

    Parameters
    ----------
    model : nn.Module
        At the weights where chains will start.
    objective : Objective
        Its loss.
    batches : Batches
        Its data.
    seed : int
        Of the random numbers that data and model may draw.
    given : float, optional
        The value, if the caller knows it.

    Returns
    -------
    float
        Mean loss per sample.

    Raises
    ------
    TypeError, ValueError
        If the loss cannot be sampled.
    """
    params = trainable(model)
    with preserved(model) as reset, seeded_rng(seed, params[0].device, batches.generators):
        with closing(batches.stream(seed)) as stream:
            objective.check(next(stream), params)
        reset()
        return objective.average(batches.full_pass()) if given is None else given


def run_chains(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    make_sampler: Callable[[list[nn.Parameter], int], torch.optim.Optimizer],
    *,
    num_chains: int,
    num_steps: int,
    seed: int,
    on_block: Callable[[NDArray[np.float32], int], None],
) -> Generator[Chain, None, None]:
    """Run chains one after another, each from the weights that `model` has.

    Parameters
    ----------
    model : nn.Module
        Sampled in place; put back when the last chain has ended or the iterator is closed.
    objective : Objective
        Its loss.
    batches : Batches
        Its data.
    make_sampler : callable
        ``make_sampler(params, key)`` with a key in ``[0, 2**64)`` of the chain's own.
    num_chains, num_steps : int
        How many, and how long.
    seed : int
        From which the keys of all chains follow.
    on_block : callable
        Called now and then with the losses of the chain so far and the steps since the last call.

    Yields
    ------
    Chain
        One for each chain, in order.
    """
    params = trainable(model)
    with preserved(model) as reset:
        for index in range(num_chains):
            reset()
            key = chain_key(seed, index)
            # A key of its own: no generator of torch can repeat the sampler's noise.
            data_key = chain_key(key, index)
            sampler = make_sampler(params, key)
            with (
                seeded_rng(data_key, params[0].device, batches.generators),
                closing(batches.stream(data_key)) as stream,
            ):
                chain = run_chain(objective.mean, params, sampler, stream, num_steps, on_block)
            yield chain
