"""A model on loan: sampled in place, handed back as it came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Hand back `model` as it came, whatever happens inside.

    Trainable weights and buffers come back bit for bit in the same tensors; ``.grad``,
    ``requires_grad`` and the training mode of each module as they were. Gradients are None inside,
    so that nothing is added to those of the caller. Costs one copy of what is trainable.

    Yields
    ------
    callable
        Puts weights, buffers and modes back to the start, for the next chain.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> before = layer.weight.detach().clone()
    >>> with preserved(layer) as reset, torch.no_grad():
    ...     _ = layer.weight.zero_()
    >>> bool((layer.weight == before).all())
    True
    """
    parameters = list(model.parameters())
    grads = [p.grad for p in parameters]
    trainable = [p.requires_grad for p in parameters]
    modes = [(module, module.training) for module in model.modules()]
    weights = [(p, p.detach().clone()) for p in parameters if p.requires_grad]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not _is_expanded(buffer)
    ]

    def reset() -> None:
        with torch.no_grad():
            for tensor, saved in weights:
                tensor.copy_(saved)
            for module, name, buffer, saved in buffers:
                module._buffers[name] = buffer
                buffer.copy_(saved)
        for module, mode in modes:
            module.training = mode
        for parameter in parameters:
            parameter.grad = None

    try:
        for parameter in parameters:
            parameter.grad = None
        yield reset
    finally:
        reset()
        for parameter, grad, flag in zip(parameters, grads, trainable, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = grad


def _is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory: torch writes to no such tensor in place."""
    return any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))
