"""One chain, in place on one model."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.engine.batches import Batch
from fastllc.errors import DivergenceWarning

# Reading a loss waits for a GPU, so they are read together, after so many steps or so long.
_BLOCK_STEPS = 100
_BLOCK_SECONDS = 0.5


@dataclass(frozen=True)
class Chain:
    """What one chain leaves behind.

    Attributes
    ----------
    losses : ndarray of float32, shape [steps]
        Minibatch loss before each step; NaN from the step of divergence on.
    diverged_at : int or None
        First step whose loss was non-finite, or that left a non-finite weight.
    """

    losses: NDArray[np.float32]
    diverged_at: int | None


def run_chain(
    mean_loss: Callable[[Batch], Tensor],
    params: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    num_steps: int,
    on_block: Callable[[NDArray[np.float32], int], None],
) -> Chain:
    """Walk `num_steps` steps: loss and gradient on a fresh minibatch, then ``optimizer.step()``.

    A chain whose loss or weights turn non-finite is frozen: it takes no part in anything from that
    step on.

    Parameters
    ----------
    mean_loss : callable
        Scalar loss of a minibatch.
    params : sequence of Tensor
        What `optimizer` moves.
    optimizer : torch.optim.Optimizer
        The sampler. If it has an attribute ``nonfinite_step``, that is believed; otherwise the
        weights are looked at when the chain ends.
    batches : iterator
        Minibatches without end.
    num_steps : int
        Steps to take, >= 1.
    on_block : callable
        Called now and then with the losses so far and the number of steps since the last call.

    Returns
    -------
    Chain
        The losses and the step of divergence.

    Examples
    --------
    >>> w = torch.ones(1, requires_grad=True)
    >>> descent = torch.optim.SGD([w], lr=0.5)
    >>> chain = run_chain(lambda b: (w**2).sum(), [w], descent, iter([0, 0]), 2, lambda *_: None)
    >>> chain.losses.tolist(), chain.diverged_at
    ([1.0, 0.0], None)
    """
    losses = np.full(num_steps, np.nan, dtype=np.float32)
    pending: list[Tensor] = []
    done = 0
    last = time.monotonic()
    with warnings.catch_warnings(), torch.enable_grad():
        # The sampler's own warning cannot say which chain it is about; the caller's does.
        warnings.simplefilter("ignore", DivergenceWarning)
        for step in range(num_steps):
            loss = mean_loss(next(batches))
            torch.autograd.backward(loss, inputs=params)
            optimizer.step()
            for p in params:
                p.grad = None
            pending.append(loss.detach())
            full = len(pending) == _BLOCK_STEPS or time.monotonic() - last > _BLOCK_SECONDS
            lost = loss.device.type == "cpu" and not math.isfinite(loss.item())
            if not (full or lost or step + 1 == num_steps):
                continue
            losses[done : step + 1] = torch.stack(pending).float().cpu().numpy()
            diverged_at = _first_nonfinite(losses, done, step + 1, optimizer)
            on_block(losses[: step + 1], step + 1 - done)
            if diverged_at is not None:
                losses[diverged_at:] = np.nan
                return Chain(losses, diverged_at)
            pending.clear()
            done, last = step + 1, time.monotonic()
    if not all(bool(torch.isfinite(p).all()) for p in params):
        return Chain(losses, num_steps - 1)
    return Chain(losses, None)


def _first_nonfinite(
    losses: NDArray[np.float32], start: int, stop: int, optimizer: torch.optim.Optimizer
) -> int | None:
    bad = np.flatnonzero(~np.isfinite(losses[start:stop]))
    steps = [start + int(bad[0])] if bad.size else []
    flagged = getattr(optimizer, "nonfinite_step", None)
    if flagged is not None:
        steps.append(int(flagged))
    return min(steps, default=None)
