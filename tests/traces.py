"""Traces as the engine returns them, made of given losses."""

import numpy as np
import xarray as xr

from fastllc import build_info

LEADING = ("checkpoint", "setting")


def trace_of(
    loss,
    init_loss=0.0,
    *,
    dims=(),
    baseline=None,
    diverged_at=None,
    lr=1e-3,
    nbeta=2.0,
    localization=1.0,
    num_burnin_steps=0,
    num_steps_bw_draws=1,
    num_samples=1000,
    shared_batches=0,
    checkpoints=None,
    metrics=None,
    observables=None,
    observable_init=None,
):
    """A trace with `loss` over (*dims, chain, step); `dims` are of `LEADING`.

    lr, nbeta and localization are scalars or, with a dimension `setting`, one for each setting.
    `metrics` and `observables` are arrays over (*dims, chain, draw) and (*dims, chain, draw,
    sample), by name. Without `diverged_at` every chain counts as finite.
    """
    loss = np.asarray(loss)
    names = (*dims, "chain")
    sizes = dict(zip(names, loss.shape, strict=False))
    num_draws = (loss.shape[-1] - num_burnin_steps) // num_steps_bw_draws
    draw_steps = num_burnin_steps + num_steps_bw_draws * (1 + np.arange(num_draws)) - 1
    if diverged_at is None:
        diverged_at = np.full(loss.shape[:-1], -1)
    coords = {dim: np.arange(size) for dim, size in sizes.items()}
    if checkpoints is not None:
        coords["checkpoint"] = checkpoints
    for name, value in (("lr", lr), ("nbeta", nbeta), ("localization", localization)):
        coords[name] = ("setting", np.asarray(value, float)) if np.ndim(value) else float(value)
    at_checkpoint = dims[:1] if dims[:1] == ("checkpoint",) else ()
    first = np.broadcast_to(np.asarray(init_loss, float), [sizes[d] for d in at_checkpoint])
    root = xr.Dataset(
        {
            "init_loss": (at_checkpoint, first),
            "diverged_at": (names, np.asarray(diverged_at, dtype=np.int64)),
        },
        coords,
        attrs={
            "seed": 0,
            "num_burnin_steps": num_burnin_steps,
            "num_draws": num_draws,
            "num_steps_bw_draws": num_steps_bw_draws,
            "batch_size": 10,
            "num_samples": num_samples,
            "shared_batches": shared_batches,
            **{f"build_{name}": value for name, value in build_info().items()},
        },
    )
    steps = {"loss": ((*names, "step"), loss.astype(np.float32))}
    if baseline is not None:
        steps["baseline"] = ((*names, "step"), np.asarray(baseline, dtype=np.float32))
    nodes = {"/": root, "/steps": xr.Dataset(steps)}
    if metrics:
        nodes["/metrics"] = xr.Dataset(
            {name: ((*names, "draw"), np.asarray(value)) for name, value in metrics.items()},
            {"step": ("draw", draw_steps)},
        )
    for name, losses in (observables or {}).items():
        losses = np.asarray(losses, dtype=np.float32)
        every = num_draws // losses.shape[-2]
        variables = {"loss": ((*names, "draw", "sample"), losses)}
        if observable_init is not None:
            variables["init_loss"] = ((*at_checkpoint, "sample"), np.asarray(observable_init[name]))
        nodes[f"/observables/{name}"] = xr.Dataset(
            variables, {"step": ("draw", draw_steps[every - 1 :: every])}
        )
    return xr.DataTree.from_dict(nodes)


def autoregressive(rng, shape, phi):
    """Stationary AR(1) along the last axis, unit variance.

    (1 + phi) / (1 - phi) draws are worth one independent.
    """
    x = rng.normal(size=shape)
    x[..., 1:] *= np.sqrt(1 - phi**2)
    for t in range(1, shape[-1]):
        x[..., t] += phi * x[..., t - 1]
    return x
