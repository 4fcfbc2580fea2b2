"""A model on loan: sampled in place, handed back as it came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["is_expanded", "preserved"]


@contextmanager
def preserved(model: nn.Module) -> Iterator[Callable[[Mapping[str, Tensor]], None]]:
    """Lend `model`, and hand it back as it came, whatever happens inside.

    Inside, trainable weights and buffers point to copies; the memory they had is not written, and
    it is theirs again at the end. ``.grad``, ``requires_grad`` and the training mode of each module
    come back as they were. Gradients are None inside, so that nothing is added to those of the
    caller.

    Yields
    ------
    callable
        Given weights by name, those of `model.state_dict()` or some of them, puts the model to
        them, and everything else of it back to the start.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> before = layer.weight.detach().clone()
    >>> with preserved(layer) as load, torch.no_grad():
    ...     load({"weight": torch.ones(1, 2)})
    ...     _ = layer.weight.mul_(2)
    >>> bool((layer.weight == before).all())
    True
    """
    parameters = list(model.parameters())
    grads = [p.grad for p in parameters]
    flags = [p.requires_grad for p in parameters]
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    lent: list[Tensor] = [p for p in parameters if p.requires_grad]
    lent += [buffer for _, _, buffer in buffers if not is_expanded(buffer)]
    originals = [(tensor, tensor.data) for tensor in dict.fromkeys(lent)]
    copies: set[int] = set()
    # Never written, so they need not be copied.
    fixed: list[tuple[Tensor, Tensor]] = [(p, p.data) for p in parameters if not p.requires_grad]
    fixed += [(buffer, buffer.data) for _, _, buffer in buffers if is_expanded(buffer)]

    def load(weights: Mapping[str, Tensor]) -> None:
        for module, mode in modes:
            module.training = mode
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for tensor, data in fixed:
            tensor.data = data
        with torch.no_grad():
            for tensor, data in originals:
                tensor.data.copy_(data)
            for name, tensor in model.state_dict(keep_vars=True).items():
                if name not in weights:
                    continue
                if id(tensor) in copies:
                    tensor.data.copy_(weights[name])
                else:
                    tensor.data = weights[name].detach()
        for parameter in parameters:
            parameter.grad = None

    try:
        for tensor, data in originals:
            tensor.data = data.clone()
            copies.add(id(tensor))
        for parameter in parameters:
            parameter.grad = None
        yield load
    finally:
        for tensor, data in (*originals, *fixed):
            tensor.data = data
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for module, mode in modes:
            module.training = mode
        for parameter, grad, flag in zip(parameters, grads, flags, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = grad


def is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory: torch writes to no such tensor in place."""
    return any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))
