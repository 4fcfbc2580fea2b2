"""Minibatches of tensors in memory: which samples a step sees is a function of its address."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fastllc import kernels
from fastllc.engine.minibatch import Batch, Minibatch, to_device
from fastllc.engine.shortcuts import FEW

__all__ = ["TensorBatches"]


class TensorBatches:
    """Minibatches of tensors that share their first dimension, by index.

    The samples of minibatch i of a chain follow from (key, i) alone: those of an epoch are one
    random order of the data, or draws with replacement. The remainder of an epoch that fills no
    minibatch is left out; as every epoch is ordered anew, no sample is left out for good.

    Parameters
    ----------
    tensors : tuple of Tensor, each of shape [n, ...]
    batch_size : int
        In [1, n]; n without replacement means all samples, in their own order.
    device : torch.device
        Where minibatches go.
    replacement : bool
        Whether samples are drawn with replacement.

    Examples
    --------
    >>> batches = TensorBatches((torch.arange(6),), 2, torch.device("cpu"))
    >>> steps = batches.stream([7])
    >>> sorted(torch.cat([next(steps).batch[0] for _ in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    generators: tuple[torch.Generator, ...] = ()

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        batch_size: int,
        device: torch.device,
        *,
        replacement: bool = False,
    ) -> None:
        self.num_samples = tensors[0].shape[0]
        self.batch_size = batch_size
        self.indexed = replacement or batch_size < self.num_samples
        self.tensors = tensors
        self._device = device
        self._replacement = replacement

    def full_pass(self, at_once: int | None = None) -> Iterator[Batch]:
        """Yield the tensors in slices of `at_once` or a minibatch, in order."""
        size = at_once or self.batch_size
        for batch in zip(*(torch.split(t, size) for t in self.tensors), strict=True):
            yield to_device(batch, self._device)

    def stream(self, keys: Sequence[int], start: int = 0) -> Generator[Minibatch, None, None]:
        """Yield minibatches without end, one for each chain at once.

        Parameters
        ----------
        keys : sequence of int
            Of each chain, in [0, 2**64); chains of one key share their minibatches.
        start : int
            The number of the first minibatch.

        Yields
        ------
        Minibatch
            Not stacked if all chains share it.
        """
        if not self.indexed:
            whole = Minibatch(to_device(self.tensors, self._device), None, stacked=False)
            while True:
                yield whole
        shared = len(set(keys)) == 1
        owners = np.array(keys[:1] if shared else keys, np.uint64)
        source = self.tensors[0].device
        take = self._taker(stacked=not shared)
        epoch, position = divmod(start, self.num_samples // self.batch_size)
        # The orders of an epoch are the largest thing here: 0.4 GB for 100 chains of 10^6 samples.
        small = torch.int32 if self.num_samples < 2**31 else torch.int64
        used = self.num_samples - self.num_samples % self.batch_size
        orders = torch.empty((len(owners), used), dtype=small)
        while True:
            kernels.order_samples(
                owners, epoch, self.num_samples, orders, replacement=self._replacement
            )
            there = orders if source.type == "cpu" else kernels.send(orders.numpy(), source)
            for index in torch.split(there, self.batch_size, dim=1)[position:]:
                # Nothing here holds a minibatch while it waits: its memory serves the next.
                yield self._minibatch(take(index), index.long(), shared=shared)
            epoch, position = epoch + 1, 0

    def _minibatch(self, batch: list[Tensor], samples: Tensor, *, shared: bool) -> Minibatch:
        if shared:
            batch, samples = [t[0] for t in batch], samples[0]
        return Minibatch(to_device(tuple(batch), self._device), samples, stacked=not shared)

    def _taker(self, *, stacked: bool) -> Callable[[Tensor], list[Tensor]]:
        """Return what takes the samples of an index, [K, batch]."""
        if all(kernels.has_rows(tensor) for tensor in self.tensors):
            # So that the products of few features find them as they need them.
            narrow = [
                stacked and t.ndim == 2 and 1 < t.shape[1] <= FEW and t.element_size() in (4, 8)
                for t in self.tensors
            ]
            return kernels.Rows(self.tensors, narrow).take

        def take(index: Tensor) -> list[Tensor]:
            return [
                t.index_select(0, index.reshape(-1).to(t.device)).view(*index.shape, *t.shape[1:])
                for t in self.tensors
            ]

        return take
