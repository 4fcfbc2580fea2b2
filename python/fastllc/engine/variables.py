"""The arrays of a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from fastllc.engine.initial import Initial
from fastllc.engine.layout import Axes, Variable
from fastllc.engine.loop import Schedule
from fastllc.engine.observables import Observed

__all__ = ["fixed", "variables"]

_CHUNK_STEPS = 1024
_CHUNK_NUMBERS = 2**22


def variables(
    axes: Axes,
    schedule: Schedule,
    observables: Mapping[str, Observed],
    *,
    paired: bool,
    metrics: Sequence[str],
    chains_at_once: int,
) -> dict[str, Variable]:
    """Return what a run fills in while it goes on, by path.

    Parameters
    ----------
    axes, schedule, observables
        Of the run.
    paired : bool
        Whether baselines are kept.
    metrics : sequence of str
        Which metrics are kept.
    chains_at_once : int
        Of the largest box; chunks are made to hold some 16 MiB at most.

    Examples
    --------
    >>> axes = Axes(None, [{"lr": 0.1}], False, 4)
    >>> schedule = Schedule(0, 10, 1, 1)
    >>> found = variables(axes, schedule, {}, paired=False, metrics=(), chains_at_once=4)
    >>> found["steps/loss"].shape
    (4, 10)
    """
    found = {"diverged_at": Variable(axes.dims, axes.shape, "int64", -1)}

    def add(name: str, time: str, times: int, *, samples: int | None = None) -> None:
        tail = () if samples is None else (samples,)
        room = max(1, _CHUNK_NUMBERS // (chains_at_once * (samples or 1)))
        found[name] = Variable(
            (*axes.dims, time, *(() if samples is None else ("sample",))),
            (*axes.shape, times, *tail),
            chunk=min(times, _CHUNK_STEPS, room),
        )

    add("steps/loss", "step", schedule.num_steps)
    if paired:
        add("steps/baseline", "step", schedule.num_steps)
    for name in metrics:
        add(f"metrics/{name}", "draw", schedule.num_draws)
    for name, observed in observables.items():
        count = len(range(0, schedule.num_draws, observed.every))
        add(f"observables/{name}/loss", "draw", count, samples=observed.num_samples)
    return found


def fixed(
    axes: Axes,
    schedule: Schedule,
    observables: Mapping[str, Observed],
    initial: Initial,
    *,
    metrics: bool,
) -> dict[str, xr.Dataset]:
    """Return what is known before the first step, by group."""
    at_checkpoint = ("checkpoint",) if axes.checkpoints is not None else ()

    def by_checkpoint(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> object:
        return values if at_checkpoint else values[0]

    def draws(every: int) -> xr.Dataset:
        numbers = np.arange(0, schedule.num_draws, every)
        steps = schedule.num_burnin_steps + (numbers + 1) * schedule.num_steps_bw_draws - 1
        return xr.Dataset(coords={"draw": numbers, "step": ("draw", steps)})

    root = axes.coords()
    root["init_loss"] = (at_checkpoint, by_checkpoint(np.array(initial.means)))
    found = {"/": root, "steps": xr.Dataset(coords={"step": np.arange(schedule.num_steps)})}
    if metrics:
        found["metrics"] = draws(1)
    for name, observed in observables.items():
        group = draws(observed.every).assign_coords(sample=np.arange(observed.num_samples))
        losses = by_checkpoint(initial.observables[name].cpu().numpy())
        group["init_loss"] = ((*at_checkpoint, "sample"), losses)
        found[f"observables/{name}"] = group
    return found
