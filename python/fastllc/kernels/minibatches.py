"""Minibatches of tensors in memory, made by native code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core
from fastllc.memory import check_storage

__all__ = ["Rows", "has_rows", "order_samples"]


def order_samples(
    keys: NDArray[np.uint64], epoch: int, n: int, out: Tensor, *, replacement: bool
) -> Tensor:
    """Fill `out` with the first samples of a random order of n, or with draws with replacement.

    Parameters
    ----------
    keys : array of uint64, [K]
    epoch : int
        In [0, 2**32).
    n : int
        At least as much as the length of a row, and what the dtype of `out` can count.
    out : Tensor, int32 or int64, [K, count], contiguous
    replacement : bool

    Examples
    --------
    >>> out = torch.empty(1, 4, dtype=torch.int32)
    >>> order_samples(np.zeros(1, np.uint64), 0, 4, out, replacement=False).sort().values
    tensor([[0, 1, 2, 3]], dtype=torch.int32)
    """
    _core.order_samples(keys, epoch, n, replacement, out.numpy(), torch.get_num_threads())
    return out


def has_rows(tensor: Tensor) -> bool:
    """Whether native code can take rows of this tensor.

    Examples
    --------
    >>> has_rows(torch.zeros(2, 3)), has_rows(torch.zeros(2, 3).T)
    (True, False)
    """
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor.is_conj()
    )


class Rows:
    """Takes rows of several tensors at once.

    Parameters
    ----------
    tensors : sequence of Tensor, [n, ...]
        Contiguous, on the CPU.
    columns_first : sequence of bool
        Of each tensor, whether its rows come as columns: what is returned has the same elements at
        the same places, but lies in memory as [K, width, batch]. Of matrices with elements of 4 or
        8 bytes.

    Examples
    --------
    >>> rows = Rows([torch.arange(6).view(3, 2)], [True])
    >>> rows.take(torch.tensor([[2, 0]]))
    [tensor([[[4, 5],
             [0, 1]]])]
    """

    def __init__(self, tensors: Sequence[Tensor], columns_first: Sequence[bool]) -> None:
        self._tensors = list(tensors)
        self._columns_first = list(columns_first)
        self._table = np.zeros(len(tensors), _core.SAMPLES)
        self._sources: list[int] = []
        self._table["width"] = [t[:1].numel() for t in tensors]
        self._table["item"] = [t.element_size() for t in tensors]
        self._table["columns_first"] = columns_first

    def take(self, index: Tensor) -> list[Tensor]:
        """Return the rows of each tensor, [K, batch, ...].

        Parameters
        ----------
        index : Tensor, int32 or int64, [K, batch]
            In [0, n), which is not checked; contiguous along its last dimension.

        Raises
        ------
        ValueError
            If a tensor has lost its memory.
        """
        sources = [t.data_ptr() for t in self._tensors]
        if sources != self._sources:
            for i, tensor in enumerate(self._tensors):
                check_storage(f"data[{i}]", tensor)
            self._table["source"] = self._sources = sources
        chains, batch = index.shape
        found = [
            t.new_empty(chains, t.shape[1], batch)
            if columns_first
            else t.new_empty(chains, batch, *t.shape[1:])
            for t, columns_first in zip(self._tensors, self._columns_first, strict=True)
        ]
        self._table["target"] = [t.data_ptr() for t in found]
        _core.take_rows(self._table, index.numpy(), torch.get_num_threads())
        return [
            t.mT if columns_first else t
            for t, columns_first in zip(found, self._columns_first, strict=True)
        ]
