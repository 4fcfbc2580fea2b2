"""The loss where chains start, and that of the samples which each step sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastllc.engine.checkpoints import Checkpoints
from fastllc.engine.data import Batches
from fastllc.engine.minibatch import Minibatch
from fastllc.engine.objective import REFUSALS, Objective
from fastllc.engine.observables import Observed

__all__ = ["Initial", "initial_losses"]

# Of the full pass: samples at once, and bytes that a backward pass would keep of them.
_AT_ONCE = 256
_ROOM = 2**26


@dataclass(frozen=True)
class Initial:
    """Losses at w*, for each checkpoint.

    Attributes
    ----------
    means : L_n(w*)
    samples : the loss of each sample, [checkpoint, n]; None if minibatches are not paired
    observables : that of each sample of an observable, [checkpoint, sample]
    """

    means: list[float]
    samples: Tensor | None = None
    observables: dict[str, Tensor] = field(default_factory=dict)

    def baseline(self, rows: Sequence[int]) -> Callable[[Minibatch], Tensor] | None:
        """Return what gives the mean loss of a minibatch at the w* of each chain, [K].

        Parameters
        ----------
        rows : sequence of int
            The checkpoint of each chain.
        """
        if self.samples is None:
            return None
        samples, single = self.samples, len(self.samples) == 1
        offsets = torch.tensor(rows, device=samples.device)[:, None] * samples.shape[1]

        def mean(minibatch: Minibatch) -> Tensor:
            assert minibatch.samples is not None
            found = minibatch.samples if single else minibatch.samples + offsets
            return samples.take(found.view(-1, found.shape[-1])).mean(1)

        return mean


def initial_losses(
    objective: Objective,
    load: Callable[[Mapping[str, Tensor]], None],
    checkpoints: Checkpoints,
    batches: Batches,
    given: float | None,
    observables: Mapping[str, Observed],
    *,
    paired: bool,
) -> Initial:
    """Compute the losses at every checkpoint, unless the mean is `given`.

    Parameters
    ----------
    objective : Objective
        The loss, of a model that `load` changes.
    load : callable
        Puts the model to the weights of a checkpoint.
    checkpoints, batches, observables
        Where, and of which samples.
    given : float, optional
        The mean, if the caller knows it.
    paired : bool
        Whether the loss of each sample is wanted. It is left out where a minibatch's loss is not
        the mean over its samples, or is always that of all samples.

    Raises
    ------
    ValueError
        If a mean is not finite.
    """
    means: list[float] = []
    samples: list[Tensor] = []
    seen: dict[str, list[Tensor]] = {name: [] for name in observables}
    for index in range(len(checkpoints)):
        load(checkpoints[index])
        with torch.no_grad():
            for name, observed in observables.items():
                seen[name].append(observed.losses(objective.each))
        if given is not None:
            means.append(given)
            continue
        pair = paired and batches.indexed
        single = _per_sample(objective, batches) if pair else None
        if single is None:
            paired = False
            means.append(objective.average(batches.full_pass()))
        else:
            samples.append(single)
            means.append(single.double().mean().item())
    use = paired and len(samples) == len(checkpoints)
    return Initial(
        means,
        torch.stack(samples) if use else None,
        {name: torch.stack(losses) for name, losses in seen.items()},
    )


@torch.no_grad()
def _per_sample(objective: Objective, batches: Batches) -> Tensor | None:
    """Return the loss of each sample; None if the loss of a batch is not their mean."""
    found = []
    for batch in batches.full_pass(_at_once(objective, batches)):
        try:
            losses = objective(batch, per_sample=True).detach().float()
            mean = objective(batch)
        except REFUSALS:
            return None
        # Relative to the losses themselves: at a good minimum they are small.
        rtol = max(1e-3, torch.finfo(objective.autocast or mean.dtype).eps)
        apart = (losses.mean() - mean.float()).abs()
        if losses.ndim != 1 or not apart <= rtol * losses.abs().mean():
            return None
        found.append(losses)
    losses = torch.cat(found)
    return losses if bool(torch.isfinite(losses).all()) else None


def _at_once(objective: Objective, batches: Batches) -> int:
    """How many samples to take at once: a minibatch, or more while that needs little memory.

    A pass over 60,000 samples, one by one, took 45 s for a net of 200 weights; by 256 it takes 2 s.
    """
    batch = next(batches.full_pass())
    kept = 1

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    size = batches.batch_size or 1
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept)
    try:
        with torch.enable_grad(), hooks:
            objective(batch)
    except REFUSALS:  # of torch.func.grad, which takes no such hooks
        return size
    return max(size, min(_AT_ONCE, size * _ROOM // kept))
