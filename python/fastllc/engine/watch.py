"""Which chains on a device have been lost: known there at once, and here some steps later."""

from __future__ import annotations

import torch
from torch import Tensor

from fastllc.engine.record import Fates
from fastllc.kernels import Fetched

__all__ = ["Watch"]

# So many steps are told of at once.
_BLOCK = 100


class Watch:
    """Follow chains without waiting for their device.

    Parameters
    ----------
    fates : Fates
        Kept up to date, but late; the step in which a chain was lost is exact.
    start : int
        The first step.

    Attributes
    ----------
    alive : Tensor of bool, [K]
        Where the chains are, and never late.

    Examples
    --------
    >>> fates = Fates.start(2)
    >>> watch = Watch(fates, start=3)
    >>> watch.see(torch.tensor([True, False]))
    >>> watch.count()
    >>> watch.settle()
    >>> fates.diverged_at.tolist()
    [-1, 3]
    """

    def __init__(self, fates: Fates, start: int) -> None:
        self._fates = fates
        self.alive = torch.from_numpy(fates.active.copy())
        self._next = start
        self._steps: list[Tensor] = []
        self._fetched: Fetched | None = None

    def see(self, finite: Tensor) -> None:
        """Take note of which chains are finite, [K]; what is lost stays lost."""
        self.alive = self.alive.to(finite.device) & finite

    def count(self) -> None:
        """Close a step; now and then tell `fates` of earlier ones."""
        self._steps.append(self.alive)
        if self._fetched is not None and self._fetched.arrived():
            self._tell(self._fetched)
        if self._fetched is None and len(self._steps) >= _BLOCK:
            self._fetched = self._fetch()

    def settle(self) -> None:
        """Tell `fates` of all steps; waits for the device."""
        if self._fetched is not None:
            self._tell(self._fetched)
        if self._steps:
            self._tell(self._fetch())

    def _fetch(self) -> Fetched:
        steps = torch.stack(self._steps)
        self._steps.clear()
        return Fetched([steps])

    def _tell(self, fetched: Fetched) -> None:
        self._fetched = None
        (steps,) = fetched.wait()
        for finite in steps.numpy():
            self._fates.lose(finite, self._next)
            self._next += 1
