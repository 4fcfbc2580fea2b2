"""Minibatches of a DataLoader, used as given: its workers, sampler and collate function."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from fastllc.engine.minibatch import Batch, Minibatch, stack, to_device
from fastllc.engine.rng import seeded_rng
from fastllc.seeds import chain_key

__all__ = ["LoaderBatches"]


class LoaderBatches:
    """Minibatches of a ``DataLoader``; an epoch is never kept in memory.

    Every batch of a chain is fetched under torch's random state seeded from (key, epoch, position),
    the first one with the start of its epoch; what came before is there again afterwards. A loader
    whose order and transforms draw from nothing else gives the same minibatches each time.

    Parameters
    ----------
    train, full : DataLoader
        Where the minibatches of the stream and of the full pass come from.
    device : torch.device
        Where minibatches go.

    Examples
    --------
    >>> data = torch.utils.data.TensorDataset(torch.arange(6))
    >>> loader = DataLoader(data, 3, shuffle=True)
    >>> batches = LoaderBatches(loader, loader, torch.device("cpu"))
    >>> next(batches.stream([1])).batch[0].tolist() == next(batches.stream([1])).batch[0].tolist()
    True
    """

    indexed = False

    def __init__(self, train: DataLoader[Any], full: DataLoader[Any], device: torch.device) -> None:
        self.num_samples = _num_samples(train)
        self.batch_size = train.batch_size
        samplers = train.sampler, train.batch_sampler, getattr(train.batch_sampler, "sampler", None)
        candidates = [getattr(source, "generator", None) for source in (train, *samplers)]
        unique = {id(g): g for g in candidates if isinstance(g, torch.Generator)}
        self.generators = tuple(unique.values())
        self.num_workers = train.num_workers
        self._train = train
        self._full = full
        self._device = device

    def full_pass(self, at_once: int | None = None) -> Iterator[Batch]:
        """Yield the batches of the loader for the full pass, of the size that it gives them."""
        for batch in self._full:
            yield to_device(batch, self._device)

    def stream(self, keys: Sequence[int], start: int = 0) -> Generator[Minibatch, None, None]:
        """Yield minibatches without end, one for each chain at once; see `TensorBatches.stream`.

        Each chain reads the loader for itself, unless all share one key.

        Raises
        ------
        ValueError
            If the loader yields nothing.
        """
        if len(set(keys)) == 1:
            with closing(self._chain(keys[0], start)) as chain:
                for batch in chain:
                    yield Minibatch(to_device(batch, self._device), None, stacked=False)
        if self._train.num_workers and self._train.persistent_workers:
            raise ValueError(
                "data must have workers that do not persist for several chains to read it at once, "
                "got a DataLoader with persistent_workers=True"
            )
        chains = [self._chain(key, start) for key in keys]
        try:
            for batches in zip(*chains, strict=True):
                yield Minibatch(to_device(stack(batches), self._device), None, stacked=True)
        finally:
            for chain in chains:
                chain.close()

    def _chain(self, key: int, start: int) -> Generator[Batch, None, None]:
        """Yield the batches of one chain from number `start`; those before are read and dropped."""
        epoch, skip = 0, start
        with suppress(TypeError, ZeroDivisionError):  # without a length, all epochs are read
            epoch, skip = divmod(start, len(self._train))
        while True:
            position = -1
            for position, batch in enumerate(self._epoch(key, epoch)):
                if position >= skip:
                    yield batch
            if position < 0:
                raise ValueError("data must yield at least one batch, got a DataLoader with none")
            epoch, skip = epoch + 1, max(0, skip - position - 1)

    def _epoch(self, key: int, epoch: int) -> Iterator[Batch]:
        cpu = torch.device("cpu")
        iterator = None
        for position in count():
            with seeded_rng(chain_key(key, epoch, position), cpu, self.generators):
                if iterator is None:
                    iterator = _start(self._train)
                found = list(islice(iterator, 1))
            if not found:
                return
            yield found[0]


def _start(loader: DataLoader[Any]) -> Iterator[Batch]:
    """Start an epoch, whose order follows from torch's random state alone.

    Workers have the order drawn now, a loader without them at the first batch; both after a seed
    for the workers. Those that persist have theirs, and would have another order without this.
    """
    if getattr(loader, "_iterator", None) is not None:
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    return iter(loader)


def _num_samples(loader: DataLoader[Any]) -> int | None:
    if loader.batch_size is None and loader.batch_sampler is None:
        return None
    try:
        total = len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        return None
    if isinstance(loader.dataset, IterableDataset):
        return total
    # Beside a batch sampler of the caller's the loader's own sampler is idle, and has all samples.
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    try:
        # A subset sampler sees fewer samples than the dataset holds.
        return min(total, len(sampler))  # type: ignore[arg-type]
    except TypeError:
        return total
