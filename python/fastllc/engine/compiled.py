"""Losses and gradients of all chains as one compiled function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
import torch._inductor
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fastllc.engine.minibatch import Batch, Minibatch, map_tensors, unpack

__all__ = ["Compiled"]

# Two at the ends of epochs and two for accumulation are ordinary.
MAX_KINDS = 16

Losses: TypeAlias = Callable[[Sequence[Tensor], Batch, bool], Tensor]
Function: TypeAlias = Callable[..., Sequence[Tensor]]


class Compiled:
    """Losses of chains and the gradients of their sum, traced once and compiled by inductor.

    What is traced are the operations that run without it, backward pass and shortcuts included; so
    the compiler sees neither autograd nor vmap. Ten linear nets of 192 weights take 0.33 ms without
    it, 0.18 if vmap and gradient are left to the compiler, 0.35 if the backward pass is autograd's,
    0.11 through ``torch.compile``, which traces once more and looks at its arguments in every call,
    and 0.08 as it is. Gradients are written where the last ones were, so that the native step finds
    the tensors that it knows. The losses must be the same operations at every step.

    Parameters
    ----------
    losses : callable
        From the chains' tensors, a batch, and whether it is stacked, to the losses, [K].
    weights : sequence of Tensor
        [K, *shape] each.
    others : sequence of Tensor
        Further tensors of the chains, without gradients.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> w = torch.tensor([[1.0], [2.0]])
    >>> compiled = Compiled(lambda tensors, x, stacked: ((tensors[0] - x) ** 2).mean(1), [w], [])
    >>> with patch("torch._inductor.compile", lambda traced, _: traced):  # which takes seconds
    ...     (losses,) = compiled([Minibatch(torch.zeros(1), None, stacked=False)])
    >>> losses.tolist(), compiled.grads[0].tolist()
    ([1.0, 4.0], [[2.0], [4.0]])
    """

    def __init__(self, losses: Losses, weights: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        self._losses = losses
        self._weights, self._others = list(weights), list(others)
        self._buffers = [torch.empty_like(w) for w in weights]
        self._functions: dict[Any, Function] = {}
        self.grads: list[Tensor | None] = []

    @torch.no_grad()
    def __call__(self, minibatches: Sequence[Minibatch]) -> list[Tensor]:
        """Return the losses of each minibatch, [K]; let `grads` be their mean gradients.

        A gradient is None if the losses do not depend on the weights.

        Raises
        ------
        ValueError
            If the model or the loss cannot be compiled, or minibatches are of too many kinds.
        """
        share, found = 1 / len(minibatches), list[Tensor]()
        for minibatch in minibatches:
            tensors, _ = unpack(minibatch.batch)
            layout = tuple((t.shape, t.stride(), t.dtype) for t in tensors)
            rest = repr(map_tensors(lambda _: None, minibatch.batch))
            key = layout, rest, minibatch.stacked, bool(found)
            if key not in self._functions:
                if len(self._functions) == MAX_KINDS:
                    raise ValueError(
                        "compile must be False for minibatches that differ in shapes or in what is "
                        f"no tensor, got more than {MAX_KINDS} kinds of them"
                    )
                self._functions[key] = self._compile(minibatch, share, add=bool(found))
            arguments = *self._weights, *self._others, *tensors, *self._buffers
            found += self._functions[key](*arguments)
        return found

    def _compile(self, minibatch: Minibatch, share: float, *, add: bool) -> Function:
        batch, _, stacked = minibatch
        tensors, repack = unpack(batch)

        ends = np.cumsum([len(self._weights), len(self._others), len(tensors)])

        def differentiate(*arguments: Tensor) -> tuple[Tensor]:
            weights, others, data, out = (arguments[a:b] for a, b in pairwise([0, *ends, None]))
            with torch.enable_grad():
                leaves = [w.detach().requires_grad_() for w in weights]
                losses = self._losses((*leaves, *others), repack(data), stacked)
                shares = torch.full_like(losses, share)
                grads: Sequence[Tensor | None] = torch.autograd.grad(
                    losses, leaves, shares, allow_unused=True
                )
            for buffer, grad in zip(out, grads, strict=True):
                if grad is not None:
                    buffer.add_(grad) if add else buffer.copy_(grad)
            if not add:
                pairs = zip(self._buffers, grads, strict=True)
                self.grads = [None if grad is None else buffer for buffer, grad in pairs]
            return (losses.detach(),)

        scratch = [torch.empty_like(w) for w in self._weights]  # tracing and trying write
        arguments = *self._weights, *self._others, *tensors, *scratch
        try:
            traced = make_fx(differentiate)(*arguments)
            function: Function = torch._inductor.compile(traced, list(arguments))
            function(*arguments)
        except Exception as error:  # tracers and compilers have no common one
            raise ValueError(
                f"compile must be False for this model and loss ({str(error)[:200]})"
            ) from error
        return function
