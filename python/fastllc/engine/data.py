"""Data as an endless stream of minibatches, and as one full pass.

Tensors are indexed directly; a ``Dataset`` is read through a ``DataLoader`` built here; a
``DataLoader`` is used as given, its workers included. An epoch is never kept in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from fastllc.engine.loaders import LoaderBatches
from fastllc.engine.minibatch import Batch, Minibatch
from fastllc.engine.tensors import TensorBatches

__all__ = ["Batches", "Data", "open_data"]

Data: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any] | DataLoader[Any]"

DEFAULT_BATCH_SIZE = 256


class Batches(Protocol):
    """What the engine asks of data."""

    @property
    def num_samples(self) -> int | None:
        """Samples in one pass; None if the data cannot tell."""

    @property
    def batch_size(self) -> int | None:
        """Samples in one minibatch; None if the data decide it batch by batch."""

    @property
    def indexed(self) -> bool:
        """Whether minibatches tell which samples they are; those of all samples need not."""

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """Generators of the caller that reading the data advances."""

    def full_pass(self, at_once: int | None = None) -> Iterator[Batch]:
        """Yield every sample once, `at_once` in a batch where the data do not decide."""

    def stream(self, keys: Sequence[int], start: int = 0) -> Generator[Minibatch, None, None]:
        """Yield minibatches without end from number `start`, one for each key at once."""


def open_data(
    data: Data, batch_size: int | None, device: torch.device, *, replacement: bool = False
) -> Batches:
    """Wrap `data` for the engine.

    Parameters
    ----------
    data : (Tensor, Tensor), Dataset or DataLoader
        Inputs and targets of shapes ``[n, ...]``, or anything torch can load.
    batch_size : int or None
        Samples per minibatch, at most n. None means 256, or all samples where there are fewer; it
        must be None with a DataLoader, which brings its own.
    device : torch.device
        Where the minibatches are moved.
    replacement : bool
        Whether the samples of a minibatch are drawn with replacement; not with a DataLoader, which
        decides for itself.

    Returns
    -------
    Batches
        The stream and the full pass.

    Raises
    ------
    TypeError, ValueError
        If the data are of another kind, hold no samples or do not fit `batch_size`.

    Examples
    --------
    >>> batches = open_data((torch.arange(6.0), torch.arange(6)), 4, torch.device("cpu"))
    >>> [len(x) for x, y in batches.full_pass()]
    [4, 2]
    >>> (x, y), index, stacked = next(batches.stream([0]))
    >>> bool((x == y).all()), len(x)
    (True, 4)
    """
    if replacement and isinstance(data, (DataLoader, IterableDataset)):
        raise ValueError("replacement must be False with data that bring their own order, got True")
    if isinstance(data, DataLoader):
        if batch_size is not None:
            raise ValueError(
                f"batch_size must be None with a DataLoader, which brings its own, got {batch_size}"
            )
        return LoaderBatches(data, data, device)
    if isinstance(data, (tuple, list)):
        return _open_tensors(_checked_pair(data), batch_size, device, replacement)
    if type(data) is TensorDataset:
        return _open_tensors(data.tensors, batch_size, device, replacement)
    if isinstance(data, IterableDataset):
        loader = DataLoader(data, batch_size or DEFAULT_BATCH_SIZE)
        return LoaderBatches(loader, loader, device)
    if isinstance(data, Dataset):
        size = _fitting_batch_size(batch_size, len(data))  # type: ignore[arg-type]
        order = RandomSampler(data, replacement=replacement)  # type: ignore[arg-type]
        train = DataLoader(data, size, sampler=order, drop_last=True)
        return LoaderBatches(train, DataLoader(data, size), device)
    raise TypeError(
        "data must be an (inputs, targets) pair of tensors, a torch Dataset or a DataLoader, "
        f"got {type(data).__name__}"
    )


def _open_tensors(
    tensors: tuple[Tensor, ...], batch_size: int | None, device: torch.device, replacement: bool
) -> TensorBatches:
    size = _fitting_batch_size(batch_size, tensors[0].shape[0])
    return TensorBatches(tensors, size, device, replacement=replacement)


def _checked_pair(pair: tuple[Any, ...] | list[Any]) -> tuple[Tensor, ...]:
    if len(pair) != 2 or not all(isinstance(t, Tensor) for t in pair):
        kinds = ", ".join(type(t).__name__ for t in pair[:4])
        raise TypeError(
            "data must be an (inputs, targets) pair of tensors, a torch Dataset or a DataLoader, "
            f"got a {type(pair).__name__} of {len(pair)} ({kinds}); "
            "torch.utils.data.TensorDataset holds any number of tensors"
        )
    inputs, targets = pair
    if not inputs.ndim or not targets.ndim or inputs.shape[0] != targets.shape[0]:
        raise ValueError(
            "data must hold inputs and targets of one length [n, ...], "
            f"got shapes {list(inputs.shape)} and {list(targets.shape)}"
        )
    return inputs, targets


def _fitting_batch_size(batch_size: int | None, num_samples: int) -> int:
    if num_samples == 0:
        raise ValueError("data must hold at least one sample, got 0")
    if batch_size is None:
        return min(DEFAULT_BATCH_SIZE, num_samples)
    if batch_size > num_samples:
        raise ValueError(
            f"batch_size must be <= {num_samples} (the samples in data), got {batch_size}"
        )
    return batch_size
