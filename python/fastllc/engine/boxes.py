"""All chains of a run, box after box, kept where they are to be kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from fastllc.engine.fingerprint import digest
from fastllc.engine.interrupts import heard_between
from fastllc.engine.job import Job
from fastllc.engine.layout import Arrays, Memory
from fastllc.engine.loaders import LoaderBatches
from fastllc.engine.loop import walk
from fastllc.engine.minibatch import Minibatch
from fastllc.engine.progress import Progress
from fastllc.engine.record import Fates, Record
from fastllc.engine.store import Position, Store
from fastllc.engine.study import Box
from fastllc.engine.variables import fixed, variables
from fastllc.engine.watch import Watch
from fastllc.errors import DivergenceWarning, warn

__all__ = ["walk_boxes"]


def walk_boxes(job: Job, store: Store | None) -> xr.DataTree:
    """Walk all chains, from where the store says; return the trace, of an interrupted run too.

    Raises
    ------
    KeyboardInterrupt
        If somebody interrupts before there is a single draw.
    """
    schedule = job.sampling.schedule
    boxes = list(job.study.boxes(job.choice.chunk))
    sizes = [int(np.prod(box.shape)) for box in boxes]
    arrays = _open(job, boxes, store)
    position = Position(0, 0, {}) if store is None or store.position is None else store.position
    bar = Progress(sum(sizes), schedule.num_steps, job.choice.engine, shown=job.sampling.progress)
    interrupted = False
    with bar as progress, warnings.catch_warnings():
        # The sampler's own warning cannot say which chain it is about; that of the run does.
        warnings.simplefilter("ignore", DivergenceWarning)
        progress.skip(sum(sizes[: position.box]) * schedule.num_steps)
        try:
            while position.box < len(boxes):
                _walk_box(job, boxes[position.box], position, arrays, progress, store)
                position = Position(position.box + 1, 0, {})
            arrays.finish()
        except KeyboardInterrupt:
            interrupted = True
    trace = arrays.tree()
    if interrupted:
        losses = trace["steps"].to_dataset()["loss"].values
        if not np.isfinite(losses[..., schedule.first_draw]).any():
            raise KeyboardInterrupt
        warn("the run was interrupted: the trace holds what there was")
    return trace


def _open(job: Job, boxes: Sequence[Box], store: Store | None) -> Arrays:
    """Make the arrays, or find them in the store."""
    if store is not None and store.position is not None:
        return store
    metrics = job.sampling.metrics
    wanted = variables(
        job.axes,
        job.sampling.schedule,
        job.observables,
        paired=job.paired,
        metrics=metrics,
        chains_at_once=int(np.prod(boxes[0].shape)),
    )
    known = fixed(
        job.axes, job.sampling.schedule, job.observables, job.initial, metrics=bool(metrics)
    )
    known["/"].attrs.update(job.attributes(), interrupted=1)
    if store is None:
        return Memory(wanted, known)
    leading = tuple(r.stop for r in job.axes.place([slice(0, n) for n in boxes[0].shape]))
    about = {
        "engine": job.choice.engine,
        "chunk_size": job.choice.chunk,
        "products": job.multiplier,
    }
    store.create(wanted, known, leading, num_boxes=len(boxes), **about)
    return store


def _walk_box(
    job: Job,
    box: Box,
    position: Position,
    arrays: Arrays,
    progress: Progress,
    store: Store | None,
) -> None:
    """Walk the chains of one box to the end, from where they were saved."""
    schedule, start, saved = job.sampling.schedule, position.step, position.state
    chains = job.study.chains(box)
    walkers, fates = job.walkers(box), Fates.start(len(chains))
    if saved:
        walkers.load_state_dict(saved["walkers"])
        fates.lose_at(saved["diverged_at"])
    record = Record(arrays, job.axes.place(box), len(chains), job.written(start))
    followed = _Followed(job, box, start, saved.get("digest"))
    watch = None if walkers.device.type == "cpu" else Watch(fates, start)
    last = 0

    def reach() -> Position:
        if watch is not None:
            watch.settle()
        record.flush(fates)
        state = {
            "walkers": walkers.state_dict(),
            "diverged_at": fates.diverged_at.tolist(),
            "digest": followed.digest(),
        }
        return Position(position.box, last, state)

    def tick(step: int) -> None:
        nonlocal last
        progress.advance(step - last, fates)
        last = step
        if store is not None and store.due():
            store.save(reach)

    single = len(job.checkpoints) * len(job.settings) == 1
    nbeta, init_loss = job.settings[0]["nbeta"], job.initial.means[0]

    def on_draw(step: int, losses: Tensor) -> None:
        if job.spectator is not None:
            job.spectator.before(step, losses)
        if progress.shown and single:
            progress.see(nbeta * (losses - init_loss))
        if job.watch is not None:
            parts = torch.cat(list(walkers.displacements()), dim=1)
            moving = fates.active if watch is None else watch.alive.cpu().numpy()
            for chain, active, delta in zip(chains, moving, parts, strict=True):
                if active:
                    job.watch(chain, delta)

    def on_moved(step: int, losses: Tensor) -> None:
        if job.spectator is not None:
            job.spectator.after(step, losses, fates.active)

    if job.spectator is not None:
        job.spectator.start(chains, [job.study.key(chain) for chain in chains], walkers)
    with closing(followed):
        try:
            with heard_between() as check:
                walk(
                    walkers,
                    followed,
                    schedule,
                    record,
                    fates,
                    start=start,
                    baseline=job.initial.baseline([chain.checkpoint for chain in chains]),
                    observables=job.observables,
                    saving=job.sampling.save_metrics,
                    judging=job.sampling.save_acceptance,
                    check=check,
                    on_draw=on_draw,
                    on_moved=on_moved,
                    on_tick=tick,
                    watch=watch,
                )
        except KeyboardInterrupt:
            if watch is not None:
                watch.settle()
            record.flush(fates)
            raise
    record.flush(fates)
    progress.finish(fates)
    if store is not None:
        store.save(lambda: Position(position.box + 1, 0, {}))


class _Followed(Iterator[Minibatch]):
    """The minibatches of a box, from those of a step on; knows what it gave last."""

    def __init__(self, job: Job, box: Box, step: int, seen: str | None) -> None:
        keys = [job.study.data_key(chain) for chain in job.study.chains(box)]
        start = step * job.sampling.accumulation
        self._told = isinstance(job.batches, LoaderBatches)
        again = self._told and seen is not None
        self._stream = job.batches.stream(keys, start - 1 if again else start)
        self._last: Any = None
        if again:
            next(self)
            if self.digest() != seen:
                warn(
                    "the DataLoader does not give the same minibatches again: the run goes on, but "
                    "is not the one that would not have been interrupted"
                )

    def __next__(self) -> Minibatch:
        found = next(self._stream)
        if self._told:
            self._last = found.batch
        return found

    def digest(self) -> str | None:
        """Hash the last minibatch, if it came from a loader."""
        return digest(self._last) if self._told else None

    def close(self) -> None:
        """End the stream, and its workers."""
        self._stream.close()
