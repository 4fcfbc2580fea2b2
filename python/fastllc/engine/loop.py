"""The loop that all chains walk in, stacked or in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.engine.minibatch import Minibatch
from fastllc.engine.observables import Observed
from fastllc.engine.record import Fates, Record
from fastllc.engine.walkers import Walkers
from fastllc.engine.watch import Watch

__all__ = ["Schedule", "walk"]

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Schedule:
    """When what happens.

    Attributes
    ----------
    num_burnin_steps, num_draws, num_steps_bw_draws : as in `Sampling`
    accumulation : minibatches a step

    Examples
    --------
    >>> schedule = Schedule(num_burnin_steps=2, num_draws=3, num_steps_bw_draws=2, accumulation=1)
    >>> schedule.num_steps, [schedule.draw(step) for step in range(2, 6)]
    (8, [None, 0, None, 1])
    """

    num_burnin_steps: int
    num_draws: int
    num_steps_bw_draws: int
    accumulation: int

    @property
    def num_steps(self) -> int:
        """Steps of a chain."""
        return self.num_burnin_steps + self.num_draws * self.num_steps_bw_draws

    def draw(self, step: int) -> int | None:
        """Return the number of the draw that is the state before this step; None: it is none."""
        draws, left = divmod(step - self.num_burnin_steps + 1, self.num_steps_bw_draws)
        return draws - 1 if left == 0 and draws >= 1 else None

    @property
    def first_draw(self) -> int:
        """The step before which the first draw is taken."""
        return self.num_burnin_steps + self.num_steps_bw_draws - 1

    def draws_before(self, step: int, every: int = 1) -> int:
        """Return how many draws, or every so many of them, there are before a step."""
        draws = max(0, step - self.num_burnin_steps) // self.num_steps_bw_draws
        return -(-draws // every)


def walk(
    walkers: Walkers,
    minibatches: Iterator[Minibatch],
    schedule: Schedule,
    record: Record,
    fates: Fates,
    *,
    start: int,
    baseline: Callable[[Minibatch], Tensor] | None,
    observables: Mapping[str, Observed],
    saving: bool,
    judging: bool,
    check: Callable[[], None],
    on_draw: Callable[[int, Tensor], None],
    on_moved: Callable[[int, Tensor], None],
    on_tick: Callable[[int], None],
    watch: Watch | None = None,
) -> None:
    """Walk chains to the end, or until all are lost.

    Parameters
    ----------
    walkers : Walkers
        The chains.
    minibatches : iterator of Minibatch
        Without end, from the first one of step `start`.
    schedule : Schedule
        When what happens.
    record : Record
        Takes losses, metrics and observables.
    fates : Fates
        Which chains move; kept up to date.
    start : int
        The first step.
    baseline : callable, optional
        The mean loss of a minibatch at w*, [K].
    observables : mapping of str to Observed
        What is evaluated at draws.
    saving : bool
        Whether metrics are kept at draws.
    judging : bool
        Whether the acceptance probability of MALA is kept at draws.
    check : callable
        Called before each step; may raise, to end the walk.
    on_draw : callable
        Called with the step of each draw and the losses, [K], before it is taken.
    on_moved : callable
        Called with the same after it.
    on_tick : callable
        Called now and then, and at the end, with the next step.
    watch : Watch, optional
        Keeps `fates` up to date where that would have to wait for a device.
    """
    last = time.monotonic()
    for step in range(start, schedule.num_steps):
        check()
        batches = list(islice(minibatches, schedule.accumulation))
        exact = walkers.gradient(batches, step)
        losses = exact.float()
        if watch is None:
            fates.lose(np.isfinite(losses.numpy()), step)
        else:
            watch.see(torch.isfinite(losses))
        draw = schedule.draw(step)
        if draw is not None:
            on_draw(step, losses)
            for name, observed in observables.items():
                if draw % observed.every == 0:
                    found = observed.losses(walkers.per_sample)
                    record.append(f"observables/{name}/loss", found, _kept(fates, watch))
        judged = judging and draw is not None
        if judged or walkers.corrected:
            finite, accepted = walkers.judge(batches, step, fates.active, exact)
            if judged:
                record.append("metrics/mala_acceptance", accepted, _kept(fates, watch))
        else:
            finite = walkers.move(step, fates.active)
        fates.lose(finite, step)
        if draw is not None:
            on_moved(step, losses)
        if watch is not None:
            if (alive := walkers.alive()) is not None:
                watch.see(alive)
            watch.count()
        kept = _kept(fates, watch)
        record.append("steps/loss", losses, kept)
        if baseline is not None:
            means = [baseline(batch) for batch in batches]
            mean = means[0] if len(means) == 1 else torch.stack(means).mean(0)
            record.append("steps/baseline", mean, kept)
        del batches  # whose memory the next ones take
        if not fates.active.any():
            break
        if draw is not None and saving:
            for name, value in walkers.metrics()._asdict().items():
                record.append(f"metrics/{name}", value, kept)
        if (now := time.monotonic()) - last > _TICK_SECONDS:
            last = now
            on_tick(step + 1)
    if watch is not None:
        watch.settle()
    finite = np.ones(len(fates.active), np.bool_)
    for distance in walkers.displacements():
        finite &= torch.isfinite(distance).all(1).cpu().numpy()
    fates.lose(finite, schedule.num_steps - 1)
    on_tick(schedule.num_steps)


def _kept(fates: Fates, watch: Watch | None) -> NDArray[np.bool_] | Tensor:
    """Return which chains' values are kept, where the chains are."""
    return fates.active if watch is None else watch.alive
