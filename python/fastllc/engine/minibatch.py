"""Minibatches: nested tensors whose first dimension counts samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["Batch", "Minibatch", "count_samples", "map_tensors", "stack", "to_device", "unpack"]

Batch: TypeAlias = Any


class Minibatch(NamedTuple):
    """What the chains of one step see.

    Attributes
    ----------
    batch : nested tensors, [batch, ...], or [chain, batch, ...] if they are `stacked`
    samples : which of the data they are, [batch] or [chain, batch]; None if nobody knows
    stacked : whether each chain has samples of its own
    """

    batch: Batch
    samples: Tensor | None
    stacked: bool


def map_tensors(function: Callable[..., Any], batch: Batch, *others: Batch) -> Batch:
    """Apply `function` to the tensors in nested tuples, lists and mappings; the rest stays.

    Examples
    --------
    >>> map_tensors(lambda a, b: a + b, {"x": torch.ones(1)}, {"x": torch.ones(1)})
    {'x': tensor([2.])}
    """
    if isinstance(batch, Tensor):
        return function(batch, *others)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, *i) for i in zip(batch, *others, strict=True)))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map_tensors(function, *i) for i in zip(batch, *others, strict=True))
    if isinstance(batch, Mapping):
        found = {k: map_tensors(function, v, *(o[k] for o in others)) for k, v in batch.items()}
        if type(batch) is dict or not isinstance(batch, MutableMapping):
            return found
        # Of a class of its own, such as tokenizers return, whose entries are attributes too.
        like = copy.copy(batch)
        like.update(found)
        return like
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor of a batch to `device`."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def stack(batches: Sequence[Batch]) -> Batch:
    """Stack the batches of several chains along a new first dimension.

    Examples
    --------
    >>> stack([(torch.zeros(3), "a"), (torch.ones(3), "a")])[0].shape
    torch.Size([2, 3])
    """
    first, *others = (map_tensors(lambda tensor: None, batch) for batch in batches)
    if any(other != first for other in others):
        raise ValueError(
            "data must yield batches that are alike in all but tensors, for chains to be stacked"
        )

    def together(*tensors: Tensor) -> Tensor:
        if len(shapes := sorted({tuple(tensor.shape) for tensor in tensors})) > 1:
            raise ValueError(
                "data must yield batches of one shape for chains to be stacked, "
                f"got {shapes[0]} and {shapes[1]}: engine='inplace' walks chain by chain"
            )
        return torch.stack(tensors)

    return map_tensors(together, *batches)


def unpack(batch: Batch) -> tuple[list[Tensor], Callable[[Iterable[Tensor]], Batch]]:
    """Return the tensors of a batch, and what puts others in their places.

    Examples
    --------
    >>> tensors, repack = unpack({"x": torch.ones(1), "name": "a"})
    >>> repack(2 * tensor for tensor in tensors)
    {'x': tensor([2.]), 'name': 'a'}
    """
    found: list[Tensor] = []
    map_tensors(found.append, batch)

    def repack(tensors: Iterable[Tensor]) -> Batch:
        rest = iter(tensors)
        return map_tensors(lambda _: next(rest), batch)

    return found, repack


def count_samples(batch: Batch) -> int | None:
    """Length of the first tensor found in `batch`; None if there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else None
    items = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(items, (tuple, list)) or isinstance(batch, Mapping):
        counts = (count_samples(item) for item in items)
        return next((count for count in counts if count is not None), None)
    return None
