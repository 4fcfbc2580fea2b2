"""One run: everything checked, all boxes of chains walked, the trace put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from fastllc.engine.boxes import walk_boxes
from fastllc.engine.checkpoints import Checkpoints, Weights, trainable
from fastllc.engine.choose import choose
from fastllc.engine.data import Data, open_data
from fastllc.engine.fingerprint import fingerprint
from fastllc.engine.heap import keep_freed
from fastllc.engine.initial import initial_losses
from fastllc.engine.interrupts import heard_between
from fastllc.engine.job import Job
from fastllc.engine.layout import Axes
from fastllc.engine.objective import Evaluate, LossFn, Objective
from fastllc.engine.observables import open_observables
from fastllc.engine.paths import one_path
from fastllc.engine.products import faster_products, kept_products
from fastllc.engine.rng import seeded_rng
from fastllc.engine.sampling import Sampling
from fastllc.engine.snapshot import preserved
from fastllc.engine.store import Store
from fastllc.engine.study import Chain, Study
from fastllc.engine.walkers import Spectator
from fastllc.errors import DivergenceError, DivergenceWarning, warn
from fastllc.samplers.metropolis import MALA
from fastllc.seeds import draw_key

__all__ = ["run"]

_MAX_NAMES = 10


def run(
    sampling: Sampling,
    model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
    data: Data,
    loss_fn: LossFn | None,
    evaluate: Evaluate | None,
    given: Sequence[Weights] | Mapping[str, Weights] | None,
    watch: Callable[[Chain, Tensor], None] | None,
    spectator: Spectator | None,
) -> xr.DataTree:
    """Sample; see `fastllc.sample`."""
    sampling.check()
    keep_freed()
    if (watch or spectator) is not None and sampling.store is not None:
        raise ValueError("store must be None: what is made of weights at draws is not kept in it")
    model, given = _one_model(model, given)
    checkpoints = Checkpoints(model, given)
    params = trainable(model)
    device = next(iter(params.values())).device
    if sampling.capture and device.type != "cuda":
        raise ValueError(f"capture must be False for parameters on {device}, got True")
    batches = open_data(data, sampling.batch_size, device, replacement=sampling.replacement)
    objective = Objective(model, loss_fn, evaluate, sampling.autocast)
    settings, asked = sampling.points(batches.num_samples)
    # Halved: attributes in files are signed 64-bit integers at most.
    seed = draw_key() // 2 if sampling.seed is None else int(sampling.seed)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        preserved(model) as load,
        seeded_rng(seed, device, batches.generators),
        one_path(),
        ExitStack() as at_end,
    ):
        load(checkpoints[0])
        # Torch imports 800 modules at the first gradient of a process: of 9 that were interrupted
        # then, 5 could not compute any more.
        with heard_between(), closing(batches.stream([seed])) as stream:
            batch = next(stream).batch
            objective.check(batch, list(params.values()))
        load(checkpoints[0])
        observables = open_observables(sampling.observables, device)
        store = None
        if sampling.store is not None:
            made_of = fingerprint(
                sampling,
                objective,
                loss_fn or evaluate,
                checkpoints,
                batches,
                observables,
                sampling.make_sampler(params, 0, settings[0]),
                load,
            )
            store = Store(sampling.store, made_of, seed)
            at_end.callback(store.close)
            seed = store.about["seed"]
            if store.complete:
                store.finish()
                return _checked(store.tree())
        study = Study(
            (len(checkpoints), len(settings), sampling.num_chains),
            seed,
            sampling.common_random_numbers,
            sampling.shared_batches,
        )
        engine, chunk = sampling.engine, sampling.chunk_size
        begun = None if store is None or store.position is None else store.about
        if begun is not None:
            engine, chunk = begun["engine"], begun["chunk_size"]
        with heard_between():
            choice = choose(
                engine,
                objective,
                checkpoints,
                batches,
                (sampling.make_sampler(params, 0, setting) for setting in settings),
                load,
                num_chains=len(checkpoints) * len(settings) * sampling.num_chains,
                shared=sampling.shared_batches,
                chunk=chunk,
            )
            if begun is not None:
                products = kept_products(begun["products"])
            elif choice.engine == "vectorised" and sampling.compile:
                products = None  # inductor's own
            else:
                products = faster_products(objective, batch)
        numeric = sampling.init_loss not in ("full", "paired")
        # Seeded again: what was done until here may differ when a run goes on.
        with seeded_rng(seed, device, batches.generators):
            initial = initial_losses(
                objective,
                load,
                checkpoints,
                batches,
                float(sampling.init_loss) if numeric else None,
                observables,
                paired=sampling.init_loss == "paired",
            )
        names = checkpoints.names if checkpoints.asked else None
        axes = Axes(names, settings, asked, sampling.num_chains)
        job = Job(
            sampling,
            objective,
            checkpoints,
            batches,
            settings,
            study,
            axes,
            observables,
            initial,
            choice,
            products,
            isinstance(sampling.make_sampler(params, 0, settings[0]), MALA),
            load,
            watch,
            spectator,
        )
        if job.corrected and not job.whole:
            warn(
                "MALA accepts or refuses a step by its own minibatches, which are not all of the "
                "data: what it samples is not exactly the posterior of all of them; a batch_size "
                "of all samples makes it exact"
            )
        trace = walk_boxes(job, store)
    return _checked(trace)


def _one_model(
    model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
    checkpoints: Sequence[Weights] | Mapping[str, Weights] | None,
) -> tuple[nn.Module, Sequence[Weights] | Mapping[str, Weights] | None]:
    """Return one model, with several given as checkpoints of it."""
    if isinstance(model, nn.Module):
        return model, checkpoints
    if not isinstance(model, (Mapping, list, tuple)):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    models = list(model.values()) if isinstance(model, Mapping) else list(model)
    if checkpoints is not None:
        raise ValueError("checkpoints must be None if several models are given")
    if not models:
        raise ValueError("model must be a module or several of them, got none")
    for each in models:
        if type(each) is not type(models[0]):
            raise ValueError(
                f"model must be modules of one class, got {type(models[0]).__name__} "
                f"and {type(each).__name__}"
            )
    return models[0], model


def _checked(trace: xr.DataTree) -> xr.DataTree:
    """Warn of chains that diverged; raise if there are no others."""
    diverged_at = trace.dataset["diverged_at"]
    lost = np.asarray(diverged_at.values >= 0)
    if not lost.any():
        return trace
    lrs = ", ".join(f"{lr:g}" for lr in np.unique(trace.dataset["lr"]))
    hint = f"lower lr (got {lrs}), or lower nbeta, or set bounding_box_size"
    if lost.all():
        error = DivergenceError(
            f"all {lost.size} chains diverged, the first at step {diverged_at.values.min()}: {hint}"
        )
        error.trace = trace
        raise error
    names = []
    for at in np.argwhere(lost)[:_MAX_NAMES]:
        point = diverged_at[tuple(at)]
        where = " ".join(f"{d} {point.coords[d].item()}" for d in reversed(diverged_at.dims))
        names.append(f"{where} at step {point.item()}")
    more = int(lost.sum()) - len(names)
    listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    warn(
        f"{lost.sum()} of {lost.size} chains diverged and are left out ({listed}): lower lr",
        DivergenceWarning,
    )
    return trace
