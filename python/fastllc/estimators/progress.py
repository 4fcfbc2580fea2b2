"""A progress bar over chains: rate, running LLC, chains lost."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from fastllc.engine.chain import Chain

__all__ = ["ChainProgress"]


class ChainProgress:
    """Show how far a fit has come.

    Parameters
    ----------
    num_chains, num_steps : int
        Size of the whole run.
    draws : slice
        The steps of a chain that are draws.
    nbeta, init_loss : float
        Turn a mean loss into an LLC.
    shown : bool
        Whether there is a bar at all.
    """

    def __init__(
        self,
        num_chains: int,
        num_steps: int,
        draws: slice,
        nbeta: float,
        init_loss: float,
        *,
        shown: bool,
    ) -> None:
        self._num_chains = num_chains
        self._num_steps = num_steps
        self._draws = draws
        self._nbeta = nbeta
        self._init_loss = init_loss
        self._sum, self._count = 0.0, 0
        self._done, self._dead, self._steps = 0, 0, 0
        self._bar = tqdm(
            total=num_chains * num_steps, unit="step", disable=not shown, dynamic_ncols=True
        )

    def __enter__(self) -> ChainProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, losses: NDArray[np.float32], steps: int) -> None:
        """Count `steps` more of the chain under way, whose losses so far are `losses`."""
        self._steps += steps
        if self._bar.disable:
            return
        draws = losses[self._draws]
        count = self._count + draws.size
        status = {"chain": f"{self._done + 1}/{self._num_chains}"}
        if count:
            mean = (self._sum + float(draws.sum(dtype=np.float64))) / count
            status["llc"] = f"{self._nbeta * (mean - self._init_loss):.3g}"
        if self._dead:
            status["diverged"] = str(self._dead)
        self._bar.set_postfix(status, refresh=False)
        self._bar.update(steps)

    def finish(self, chain: Chain) -> None:
        """Close the chain under way."""
        self._done += 1
        if chain.diverged_at is not None:
            self._dead += 1
            if not self._bar.disable:
                self._bar.total -= self._num_steps - self._steps
        else:
            draws = chain.losses[self._draws]
            self._sum += float(draws.sum(dtype=np.float64))
            self._count += draws.size
        self._steps = 0
