"""Which way chains run: stacked, if the model lets them and it pays, or in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastllc import kernels
from fastllc.engine.checkpoints import Checkpoints, trainable
from fastllc.engine.data import Batches
from fastllc.engine.minibatch import map_tensors
from fastllc.engine.objective import Objective
from fastllc.engine.vectorised import VectorisedWalkers
from fastllc.errors import warn
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.stack import Blueprint, blueprint

__all__ = ["MAX_WEIGHTS", "CannotStackError", "Choice", "choose"]

# What the chains of one stack may take, weights and what backward passes keep of forward ones.
_BUDGET = 2**30
# Above this the arithmetic of one chain keeps the processor busy.
MAX_WEIGHTS = 2**20


class Choice(NamedTuple):
    """How chains run.

    Attributes
    ----------
    engine : "vectorised" or "inplace"
    reason : why, in words
    chunk : how many chains at once
    blueprints : of the sampler at each setting, if they are vectorised
    """

    engine: str
    reason: str
    chunk: int
    blueprints: list[Blueprint]


class CannotStackError(ValueError):
    """Chains must be vectorised, and cannot."""


class _Refused(Exception):
    """Chains cannot be vectorised, and why."""


def choose(
    engine: str,
    objective: Objective,
    checkpoints: Checkpoints,
    batches: Batches,
    samplers: Iterator[torch.optim.Optimizer],
    load: Callable[[Mapping[str, Tensor]], None],
    *,
    num_chains: int,
    shared: bool,
    chunk: int | None,
) -> Choice:
    """Decide how chains run, by trying two of them on one minibatch.

    Parameters
    ----------
    engine : {"auto", "vectorised", "inplace"}
        What the caller wants.
    objective, checkpoints, batches
        What is sampled.
    samplers : iterator of torch.optim.Optimizer
        The sampler of each setting, on the model's parameters.
    load : callable
        Puts the model to weights.
    num_chains : int
        Of the whole study.
    shared : bool
        Whether all chains see the same minibatches.
    chunk : int, optional
        How many chains to stack at most; None: as many as fit 1 GiB.

    Raises
    ------
    CannotStackError
        If chains must be vectorised and cannot.
    """
    model = objective.model
    in_place = Choice("inplace", "as asked", 1, [])
    if engine == "inplace":
        for _ in samplers:  # which refuses settings that are unfit
            pass
        return in_place
    try:
        blueprints = _blueprints(samplers, trainable(model))
        if engine == "auto":
            _worth_it(model, batches, num_chains, shared)
        size = _try(objective, checkpoints, batches, blueprints[0], load, shared=shared)
    except _Refused as refusal:
        reason = str(refusal)
        if engine == "vectorised":
            raise CannotStackError(
                f'engine must be "auto" or "inplace" for this model and data: {reason}'
            ) from refusal.__cause__
        unsteady = _unsteady(objective, batches)
        load(checkpoints[0])
        if unsteady:
            warn(
                f"{unsteady}: chains run in place, one after another, and the "
                "loss is not a function of the weights alone; model.eval() makes it one"
            )
        return in_place._replace(reason=reason)
    limit = max(1, _BUDGET // size) if chunk is None else chunk
    chunk = min(limit, num_chains)
    return Choice("vectorised", f"{chunk} of {num_chains} chains at once", chunk, blueprints)


def _blueprints(
    samplers: Iterator[torch.optim.Optimizer], params: Mapping[str, nn.Parameter]
) -> list[Blueprint]:
    found = []
    for sampler in samplers:
        name = type(sampler).__name__
        if not isinstance(sampler, Sampler) or type(sampler).step is not Sampler.step:
            raise _Refused(f"{name} is not a sampler of fastllc")
        if sampler._optimizer_step_pre_hooks or sampler._optimizer_step_post_hooks:
            raise _Refused(f"{name} has hooks, which are called for one chain at a time")
        moved = [p for group in sampler.param_groups for p in group["params"]]
        if [id(p) for p in moved] != [id(p) for p in params.values()]:
            raise _Refused(f"{name} does not have the model's parameters in their order")
        if not kernels.has_kernel(moved[0]):
            raise _Refused(f"there is no native kernel for {moved[0].device}")
        found.append(blueprint(sampler))
    for other in found[1:]:
        if other.kind is not found[0].kind or other.groups != found[0].groups:
            raise _Refused("settings differ in the kind of sampler or its parameter groups")
    return found


def _worth_it(model: nn.Module, batches: Batches, num_chains: int, shared: bool) -> None:
    if num_chains == 1:
        raise _Refused("there is one chain")
    if getattr(batches, "num_workers", 0) and not shared:
        raise _Refused("a DataLoader with workers would start them for each chain")
    count = sum(p.numel() for p in trainable(model).values())
    if count > MAX_WEIGHTS:
        raise _Refused(f"{count:,} weights keep the processor busy with one chain")


def _try(
    objective: Objective,
    checkpoints: Checkpoints,
    batches: Batches,
    plan: Blueprint,
    load: Callable[[Mapping[str, Tensor]], None],
    *,
    shared: bool,
) -> int:
    """Walk two chains to one gradient, and compare with the model's own; return bytes a chain."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    walkers = VectorisedWalkers(objective, checkpoints, slice(0, 1), [0, 0], [plan, plan], [0, 0])
    # Off the minimum, where gradients are not what rounding leaves of larger terms.
    generator = torch.Generator().manual_seed(0)
    for leaf in walkers.leaves:
        weights = leaf.detach()
        scale = 0.01 * weights.float().abs().mean() + 1e-4
        noise = torch.randn(weights.shape, generator=generator).to(weights) * scale
        weights += noise.to(weights.dtype)
    try:
        with closing(batches.stream([0, 0] if shared else [0, 1])) as stream:
            minibatch = next(stream)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses = walkers.gradient([minibatch], 0)
    except Exception as error:  # whatever a model that ran by itself makes of tensors under vmap
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _Refused(f"vmap refuses the model or its data ({lines[0][:200]})") from error
    params = list(trainable(objective.model).values())
    for param, leaf in zip(params, walkers.leaves, strict=True):
        param.data.copy_(leaf.detach()[1])
    batch = minibatch.batch
    if minibatch.stacked:
        batch = map_tensors(lambda tensor: tensor[1].contiguous(), batch)
    loss = objective(batch)
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    load(checkpoints[0])
    found = [(loss.detach(), losses[1])]
    pairs = list(zip(grads, walkers.leaves, strict=True))
    # Where the loss is tiny, such a gradient is within the tolerance below.
    if any(own is not None and leaf.grad is None for own, leaf in pairs):  # type: ignore[redundant-expr]
        raise _Refused("weights reach the loss on a way that stacked ones cannot take")
    for own, leaf in pairs:
        zero = torch.zeros_like(leaf.detach()[1])
        found.append(
            (
                zero if own is None else own,  # type: ignore[redundant-expr]
                zero if leaf.grad is None else leaf.grad[1],
            )
        )
    for own, stacked in found if loss.isfinite() else ():
        low = own.dtype in (torch.bfloat16, torch.float16) or objective.autocast is not None
        apart = (own.double() - stacked.double()).norm()
        if not apart <= (0.3 if low else 0.01) * own.double().norm() + 1e-6:
            raise _Refused("vmap gives another loss or gradient than the model itself")
    held = sum(leaf.numel() * leaf.element_size() for leaf in walkers.leaves) // 2
    return kept // 2 + 4 * held


@torch.no_grad()
def _unsteady(objective: Objective, batches: Batches) -> str | None:
    """Say what makes the loss depend on more than weights and data."""
    for module in objective.model.modules():
        norm = isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (norm or dropout):
            return f"{type(module).__name__} is in training mode"
    with closing(batches.stream([0])) as stream:
        batch = next(stream).batch
    first, second = objective(batch), objective(batch)
    return (
        None
        if torch.allclose(first, second, rtol=1e-4, equal_nan=True)
        else "the loss differs from call to call"
    )
