"""A model called with other weights than its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch._C import _functorch

from fastllc.engine.shortcuts import Shortcuts

__all__ = ["Slots", "batched"]

# Which loads the decompositions that some operations need under vmap.
torch.func.vmap(torch.neg)(torch.zeros(1))


@contextmanager
def batched(
    size: int, shortcuts: Shortcuts | None = None
) -> Iterator[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """Do what `torch.func.vmap` does around a function, without its detours in Python.

    They cost 0.1 of the 0.6 ms that a forward and backward pass of a small model takes.

    Parameters
    ----------
    size : int
        Of the first dimension.
    shortcuts : Shortcuts, optional
        Taken inside.

    Yields
    ------
    hide, show : callable
        Hide the first dimension of a tensor from what is called inside; and
        show it again.

    Examples
    --------
    >>> with batched(2) as (hide, show):
    ...     found = show(hide(torch.ones(2, 3)).sum())
    >>> found
    tensor([3., 3.])
    """
    level = _functorch._vmap_increment_nesting(size, "error")
    try:
        with nullcontext() if shortcuts is None else shortcuts.at(level):
            yield (
                lambda tensor: _functorch._add_batch_dim(tensor, 0, level),
                lambda tensor: _functorch._remove_batch_dim(tensor, level, size, 0),
            )
    finally:
        _functorch._vmap_decrement_nesting()


class Slots:
    """Where a module keeps its tensors, so that others can stand in for them.

    `torch.func.functional_call` looks for these places at every call, which takes a tenth of a step
    of a small model.

    Parameters
    ----------
    module : nn.Module
        Parameters and buffers that it has under several names count as one tensor.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> slots = Slots(layer)
    >>> with slots.filled({"weight": layer.weight.new_zeros(1, 2)}):
    ...     layer(layer.weight.new_ones(2)).item()
    0.0
    """

    def __init__(self, module: nn.Module) -> None:
        places: dict[int, list[tuple[dict[str, Tensor | None], str]]] = {}
        self._places: dict[str, list[tuple[dict[str, Tensor | None], str]]] = {}
        for prefix, owner in module.named_modules(remove_duplicate=False):
            for kept in (owner._parameters, owner._buffers):
                for name, tensor in kept.items():
                    if tensor is None:
                        continue
                    shared = places.setdefault(id(tensor), [])
                    if not any(known is kept and other == name for known, other in shared):
                        shared.append((kept, name))
                    self._places[f"{prefix}.{name}" if prefix else name] = shared

    @contextmanager
    def filled(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Let `tensors`, by name, stand in for the module's own for a while."""
        own = []
        try:
            for name, tensor in tensors.items():
                for kept, key in self._places[name]:
                    own.append((kept, key, kept[key]))
                    kept[key] = tensor
            yield
        finally:
            for kept, key, tensor_or_none in reversed(own):
                kept[key] = tensor_or_none
