"""Data as an endless stream of minibatches, and as one full pass.

Tensors are indexed directly; a ``Dataset`` is read through a ``DataLoader`` built here; a
``DataLoader`` is used as given, its workers included. An epoch is never kept in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

Batch: TypeAlias = Any
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
    def generators(self) -> tuple[torch.Generator, ...]:
        """Generators of the caller that reading the data advances."""

    def full_pass(self) -> Iterator[Batch]:
        """Yield every sample once."""

    def stream(self, seed: int) -> Generator[Batch, None, None]:
        """Yield minibatches without end, reshuffled every epoch."""


class TensorBatches:
    """Minibatches of tensors that share their first dimension, by index.

    The order follows from `seed` alone. The remainder of an epoch that fills no minibatch is left
    out; as every epoch is shuffled anew, no sample is left out for good.
    """

    generators: tuple[torch.Generator, ...] = ()

    def __init__(self, tensors: tuple[Tensor, ...], batch_size: int, device: torch.device) -> None:
        self.num_samples = tensors[0].shape[0]
        self.batch_size = batch_size
        self._tensors = tensors
        self._device = device

    def full_pass(self) -> Iterator[Batch]:
        """Yield the tensors in slices, in order."""
        for batch in zip(*(torch.split(t, self.batch_size) for t in self._tensors), strict=True):
            yield to_device(batch, self._device)

    def stream(self, seed: int) -> Generator[Batch, None, None]:
        """Yield shuffled minibatches without end; the whole tensors, if one batch holds all."""
        if self.batch_size == self.num_samples:
            whole = to_device(self._tensors, self._device)
            while True:
                yield whole
        generator = torch.Generator().manual_seed(seed)
        used = self.num_samples - self.num_samples % self.batch_size
        while True:
            order = torch.randperm(self.num_samples, generator=generator)[:used]
            for index in torch.split(order.to(self._tensors[0].device), self.batch_size):
                batch = tuple(t.index_select(0, index) for t in self._tensors)
                yield to_device(batch, self._device)


class LoaderBatches:
    """Minibatches of a ``DataLoader``.

    Parameters
    ----------
    train, full : DataLoader
        Where the minibatches of the stream and of the full pass come from.
    """

    def __init__(self, train: DataLoader[Any], full: DataLoader[Any], device: torch.device) -> None:
        self.num_samples = _loader_samples(train)
        self.batch_size = train.batch_size
        candidates = (train.generator, getattr(train.sampler, "generator", None))
        unique = {id(g): g for g in candidates if isinstance(g, torch.Generator)}
        self.generators = tuple(unique.values())
        self._train = train
        self._full = full
        self._device = device

    def full_pass(self) -> Iterator[Batch]:
        """Yield the batches of the loader for the full pass."""
        for batch in self._full:
            yield to_device(batch, self._device)

    def stream(self, seed: int) -> Generator[Batch, None, None]:
        """Yield batches without end; torch's random state, not `seed`, decides their order."""
        while True:
            empty = True
            for batch in self._train:
                empty = False
                yield to_device(batch, self._device)
            if empty:
                raise ValueError("data must yield at least one batch, got a DataLoader with none")


def open_data(data: Data, batch_size: int | None, device: torch.device) -> Batches:
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
    >>> x, y = next(batches.stream(seed=0))
    >>> bool((x == y).all()), len(x)
    (True, 4)
    """
    if isinstance(data, DataLoader):
        if batch_size is not None:
            raise ValueError(
                f"batch_size must be None with a DataLoader, which brings its own, got {batch_size}"
            )
        return LoaderBatches(data, data, device)
    if isinstance(data, (tuple, list)):
        return _open_tensors(_checked_pair(data), batch_size, device)
    if type(data) is TensorDataset:
        return _open_tensors(data.tensors, batch_size, device)
    if isinstance(data, IterableDataset):
        loader = DataLoader(data, batch_size or DEFAULT_BATCH_SIZE)
        return LoaderBatches(loader, loader, device)
    if isinstance(data, Dataset):
        size = _fitting_batch_size(batch_size, len(data))  # type: ignore[arg-type]
        train = DataLoader(data, size, shuffle=True, drop_last=True)
        return LoaderBatches(train, DataLoader(data, size), device)
    raise TypeError(
        "data must be an (inputs, targets) pair of tensors, a torch Dataset or a DataLoader, "
        f"got {type(data).__name__}"
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor in nested tuples, lists and mappings to `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(item, device) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(item, device) for item in batch)
    if isinstance(batch, Mapping):
        return {key: to_device(item, device) for key, item in batch.items()}
    return batch


def count_samples(batch: Batch) -> int | None:
    """Length of the first tensor found in `batch`; None if there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else None
    items = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(items, (tuple, list)) or isinstance(batch, Mapping):
        counts = (count_samples(item) for item in items)
        return next((count for count in counts if count is not None), None)
    return None


def _open_tensors(
    tensors: tuple[Tensor, ...], batch_size: int | None, device: torch.device
) -> TensorBatches:
    return TensorBatches(tensors, _fitting_batch_size(batch_size, tensors[0].shape[0]), device)


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


def _loader_samples(loader: DataLoader[Any]) -> int | None:
    if loader.batch_size is None and loader.batch_sampler is None:
        return None
    try:
        total = len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        return None
    if isinstance(loader.dataset, IterableDataset):
        return total
    try:
        # A subset sampler sees fewer samples than the dataset holds.
        return min(total, len(loader.sampler))  # type: ignore[arg-type]
    except TypeError:
        return total
