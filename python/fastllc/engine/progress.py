"""A progress bar over chains: rate, remaining time, running LLC, chains lost."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastllc.engine.record import Fates
from fastllc.kernels import Fetched

__all__ = ["Progress"]


class Progress:
    """Show how far a run has come.

    Parameters
    ----------
    num_chains, num_steps : int
        Size of the whole run.
    engine : str
        How chains run.
    shown : bool
        Whether there is a bar at all.
    """

    def __init__(self, num_chains: int, num_steps: int, engine: str, *, shown: bool) -> None:
        self._num_chains = num_chains
        self._lost = 0
        self._total, self._count = 0.0, 0
        self._seen: list[Tensor] = []
        self._fetched: Fetched | None = None  # on their way from a GPU
        self.shown = shown
        self._bar = tqdm(
            total=num_chains * num_steps,
            desc=engine,
            unit="step",
            disable=not shown,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def skip(self, steps: int) -> None:
        """Count what an earlier run has done already."""
        self._bar.update(steps)

    def advance(self, steps: int, fates: Fates) -> None:
        """Count `steps` more of the chains under way."""
        if not self.shown:
            return
        if self._seen and self._fetched is None:
            self._fetched = Fetched([torch.stack(self._seen)])
            self._seen.clear()
        if self._fetched is not None and self._fetched.arrived():
            llcs = self._fetched.wait()[0].numpy()[:, fates.active]
            self._fetched = None
            self._total += float(llcs.sum(dtype=np.float64))
            self._count += llcs.size
        status = {"chains": str(self._num_chains)}
        if self._count:
            status["llc"] = f"{self._total / self._count:.3g}"
        if lost := self._lost + int((~fates.active).sum()):
            status["diverged"] = str(lost)
        self._bar.set_postfix(status, refresh=False)
        self._bar.update(steps * len(fates.active))

    def see(self, llcs: Tensor) -> None:
        """Take in what a draw of each chain says about the LLC; it is read when it is shown."""
        if self.shown:
            self._seen.append(llcs)

    def finish(self, fates: Fates) -> None:
        """Close the chains under way."""
        self._lost += int((~fates.active).sum())
