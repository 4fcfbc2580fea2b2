"""Chains as a labelled dataset that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np
import xarray as xr

from fastllc.engine.chain import Chain
from fastllc.info import build_info

__all__ = ["to_dataset"]


def to_dataset(
    chains: Sequence[Chain], draws: slice, init_loss: float, settings: Mapping[str, object]
) -> xr.Dataset:
    """Collect chains.

    Parameters
    ----------
    chains : sequence of Chain
        Of one length.
    draws : slice
        The steps that are draws.
    init_loss : float
        Loss where the chains started.
    settings : mapping
        Kept as attributes, beside the build.

    Returns
    -------
    xarray.Dataset
        ``loss`` (chain, draw), ``loss_trace`` (chain, step), ``init_loss``, ``diverged_at``
        (chain). A diverged chain has no draws: what it saw before is in its trace alone.
    """
    trace = np.stack([chain.losses for chain in chains])
    diverged_at = np.array([-1 if c.diverged_at is None else c.diverged_at for c in chains])
    loss = np.where(diverged_at[:, None] < 0, trace[:, draws], np.float32(np.nan))
    build = {f"build_{name}": value for name, value in build_info().items()}
    return xr.Dataset(
        {
            "loss": (("chain", "draw"), loss),
            "loss_trace": (("chain", "step"), trace),
            "init_loss": ((), init_loss),
            "diverged_at": ("chain", diverged_at),
        },
        coords={
            "chain": np.arange(loss.shape[0]),
            "draw": np.arange(loss.shape[1]),
            "step": np.arange(trace.shape[1]),
        },
        attrs={name: _plain(value) for name, value in {**settings, **build}.items()},
    )


def _plain(value: object) -> str | int | float:
    """`value` in a type that every file format can hold as an attribute."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return "none" if value is None else str(value)
