"""What chains leave behind, gathered in chunks and written where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.engine.layout import Array, Arrays

__all__ = ["Fates", "Record", "Series"]


class Fates(NamedTuple):
    """Which of K chains still move, and from which step on the others do not; -1 for the former."""

    active: NDArray[np.bool_]
    diverged_at: NDArray[np.int64]

    @classmethod
    def start(cls, count: int) -> Fates:
        """All chains moving."""
        return cls(np.ones(count, np.bool_), np.full(count, -1))

    def lose_at(self, diverged_at: list[int]) -> None:
        """Take up what an earlier run has found."""
        self.diverged_at[:] = diverged_at
        self.active[:] = self.diverged_at < 0

    def lose(self, finite: NDArray[np.bool_], step: int) -> None:
        """Stop the chains that are not finite.

        Examples
        --------
        >>> fates = Fates.start(2)
        >>> fates.lose(np.array([True, False]), step=3)
        >>> fates.diverged_at.tolist()
        [-1, 3]
        """
        if finite.all():
            return
        lost = self.active & ~finite
        self.diverged_at[lost] = step
        self.active[lost] = False


class Series:
    """Values of K chains at successive times, written in whole chunks.

    Parameters
    ----------
    target : array, shape [*leading, times, ...]
        Where they go.
    place : tuple of slice
        Which part of the leading dimensions is theirs.
    count : int
        K, the size of that part.
    chunk : int
        How many times belong together.
    start : int
        The first time; values before it in the same chunk are read from the target.

    Examples
    --------
    >>> target = np.full((2, 3), np.nan)
    >>> series = Series(target, (slice(0, 2),), 2, chunk=2)
    >>> series.append(torch.tensor([1.0, 2.0]))
    >>> series.flush()
    >>> target[:, 0]
    array([1., 2.])
    """

    def __init__(
        self,
        target: Array,
        place: tuple[slice, ...],
        count: int,
        *,
        chunk: int,
        start: int = 0,
    ) -> None:
        self._target = target
        self._place = place
        self._tail = target.shape[len(place) + 1 :]
        self._buffer = torch.full((count, chunk, *self._tail), torch.nan)
        self._chunk = chunk
        self._next = self._written = start
        offset = start % chunk
        if offset:
            kept = np.asarray(target[(*place, slice(start - offset, start))])
            self._buffer[:, :offset] = torch.from_numpy(kept.reshape(count, offset, *self._tail))

    def append(self, values: Tensor) -> None:
        """Add the values of one time, [K, ...]; they stay on their device until written."""
        if self._buffer.device != values.device:
            self._buffer = self._buffer.to(values.device)
        if values.device.type == "cpu":  # numpy writes a column in 2 us, torch in 10
            # What single precision does not hold, of chains that run away, numpy warns of.
            self._buffer.numpy()[:, self._next % self._chunk] = values.float().numpy()
        else:
            self._buffer[:, self._next % self._chunk] = values
        self._next += 1
        if self._next % self._chunk == 0:
            self.flush()

    def flush(self) -> None:
        """Write the chunk under way, as far as it goes."""
        if self._next == self._written:
            return
        start = (self._next - 1) // self._chunk * self._chunk
        stop = min(start + self._chunk, self._target.shape[len(self._place)])
        values = self._buffer[:, : stop - start].cpu().numpy()
        lead = tuple(r.stop - r.start for r in self._place)
        self._target[(*self._place, slice(start, stop))] = values.reshape(
            *lead, stop - start, *self._tail
        )
        self._written = self._next
        if self._next % self._chunk == 0:
            self._buffer.fill_(torch.nan)


class Record:
    """The series of one box of chains.

    Parameters
    ----------
    arrays : Arrays
        Where they go.
    place : tuple of slice
        Where the box lies.
    count : int
        Number of its chains.
    written : mapping of str to int
        The series, and how many values of each there are already.
    """

    def __init__(
        self,
        arrays: Arrays,
        place: tuple[slice, ...],
        count: int,
        written: Mapping[str, int],
    ) -> None:
        self._fates = arrays["diverged_at"]
        self._place = place
        self._series = {
            name: Series(arrays[name], place, count, chunk=arrays.chunk(name), start=start)
            for name, start in written.items()
        }

    def append(self, name: str, values: Tensor, active: NDArray[np.bool_] | Tensor) -> None:
        """Add the values of a series, [K, ...]; NaN for the chains that are lost."""
        if isinstance(active, Tensor) or not active.all():
            known = active if isinstance(active, Tensor) else torch.from_numpy(active)
            kept = known.to(values.device)
            # Of counts, too, `where` makes numbers that can be NaN.
            values = torch.where(kept.view(-1, *[1] * (values.ndim - 1)), values, torch.nan)
        self._series[name].append(values)

    def flush(self, fates: Fates) -> None:
        """Write everything that there is."""
        for series in self._series.values():
            series.flush()
        shape = tuple(r.stop - r.start for r in self._place)
        self._fates[self._place] = fates.diverged_at.reshape(shape)
