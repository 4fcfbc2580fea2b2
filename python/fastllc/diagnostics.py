"""Chains judged in plain words: what is wrong with them, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.convergence import standard_error
from fastllc.estimators.coefficient import llc
from fastllc.estimators.traces import LEADING, cells, draws, excess_loss, shared, usable
from fastllc.summaries import Summaries, Summary, decimals

__all__ = ["Summaries", "Summary", "decimals", "labels", "summarize"]

# Vehtari et al. 2021, section 4: below these R-hat and the error bars themselves can be relied on.
MAX_RHAT = 1.01
MIN_ESS = 400.0
MAX_DRIFT = 3.0
# Of a quadratic loss in 10, 100, 1000 and 10,000 directions, SGLD of which so many steps would be
# accepted (simulated) has an LLC that is 15, 6, 3 and 1 % too high.
MIN_ACCEPTANCE = 0.9

_NUM_WINDOWS = 10
# Of a loss, kept in single precision.
_ROUNDING = 4 * 2**-23
_MAX_NAMED = 12


def summarize(trace: xr.DataTree) -> Summary | Summaries:
    """Estimate, diagnostics and warnings from the trace alone, fresh or loaded from a file.

    Parameters
    ----------
    trace : xarray.DataTree
        A finished trace.

    Returns
    -------
    Summary or Summaries
        Over the chains that are usable; one for each checkpoint and setting where the trace has
        such dimensions.
    """
    places = list(cells(trace))
    found = llc(trace)
    each = [_summary(trace.isel(place), found.isel(place)) for place in places]
    if places == [{}]:
        return each[0]
    return Summaries(tuple(each), tuple(labels(trace, place) for place in places))


def _judge(cell: xr.DataTree, found: xr.Dataset) -> Iterator[str]:
    """Tell what is wrong with `cell`, whose `llc` is `found`, and what to change."""
    value = {str(name): float(found[name]) for name in found if not found[name].dims}
    diverged = np.flatnonzero(cell.dataset["diverged_at"].values >= 0)
    if diverged.size:
        fate = "The others are close to the edge too: lower lr."
        if diverged.size == cell.sizes["chain"]:
            fate = "None is left: lower lr or nbeta, or set bounding_box_size."
        yield f"diverged and left out: chain {_listed(diverged)}. {fate}"
    yield from _interrupted(cell)
    if not value["num_chains"]:
        return
    if float(abs(draws(cell)).max()) <= _ROUNDING * abs(float(cell["init_loss"])):
        yield (
            "the loss at every draw is that of the model's own weights, to rounding: the chains "
            "have not moved. Raise lr."
        )
        return
    if value["num_chains"] == 1:
        yield "one chain cannot show whether chains agree: run at least 4."
    if not np.isfinite(value["sem"]):
        yield "too few draws for an error bar: raise num_draws."
    if value["rhat"] > MAX_RHAT:
        yield (
            f"R-hat {value['rhat']:.3f} is above {MAX_RHAT}: the chains do not agree yet. Raise "
            "num_burnin_steps and num_draws, or raise localization."
        )
    size = min(value["ess_bulk"], value["ess_tail"])
    if size < MIN_ESS:
        more = " or num_steps_bw_draws" if shared(cell) else ", num_steps_bw_draws or num_chains"
        yield (
            f"ESS {size:.0f} is below {MIN_ESS:.0f}: the error bar is itself uncertain. Raise "
            f"num_draws{more}."
        )
    if abs(value["drift"]) > MAX_DRIFT:
        way = "rises" if value["drift"] > 0 else "falls"
        yield (
            f"the loss still {way} along the draws, by {abs(value['drift']):.1f} standard errors: "
            "raise num_burnin_steps."
        )
    if value["llc"] < 0:
        yield (
            "the LLC is negative: the chains found lower losses than the model's own. Train "
            "further, raise localization, or lower lr."
        )
    elif _dips(cell):
        yield (
            "the loss dips below the initial loss on the way: the model is not at a minimum. Train "
            "further, or raise localization."
        )
    yield from _refused(cell)


def _summary(cell: xr.DataTree, found: xr.Dataset) -> Summary:
    names = ("llc", "sem", "std", "rhat", "ess_bulk", "ess_tail", "drift")
    return Summary(
        **{name: float(found[name]) for name in names},
        num_chains=int(found["num_chains"]),
        diverged=tuple(np.flatnonzero(cell.dataset["diverged_at"].values >= 0).tolist()),
        warnings=tuple(_judge(cell, found)),
    )


def labels(trace: xr.DataTree, place: dict[str, int]) -> dict[str, str]:
    """Name what tells a cell from the others: its checkpoint, and the settings that vary."""
    coords = trace.to_dataset().isel(place).coords
    varying = [
        name
        for name, coord in trace.coords.items()
        if coord.dims == ("setting",) and name != "setting" and np.unique(coord.values).size > 1
    ]
    names = [dim for dim in LEADING if dim in place]
    if varying and "setting" in names:
        names[names.index("setting") :] = [str(name) for name in varying]
    values = {name: coords[name].item() if name in coords else place[name] for name in names}
    return {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in values.items()}


def _interrupted(cell: xr.DataTree) -> Iterator[str]:
    stayed = cell.dataset["diverged_at"].values < 0
    finite = np.isfinite(draws(cell).values)
    chains, length = usable(finite)
    if not stayed.any() or finite[stayed].all():
        return
    text = f"interrupted after {length} of {finite.shape[1]} draws"
    short = np.setdiff1d(np.flatnonzero(stayed), chains)
    if short.size:
        text += f"; too short and left out: chain {_listed(short)}"
    yield f"{text}. Where there is a store, the same call goes on."


def _dips(cell: xr.DataTree) -> bool:
    """Whether the loss, averaged over chains and a window of steps, falls below the initial."""
    excess = excess_loss(cell).values
    stayed = cell.dataset["diverged_at"].values < 0
    chains, length = usable(np.isfinite(excess) & stayed[:, None])
    windows = np.array_split(excess[chains, :length], _NUM_WINDOWS, axis=1)
    # A NaN error, of a window of fewer than four steps, compares as no dip.
    return any(
        w.size > 0 and w.mean() + 3 * standard_error(w, shared=shared(cell)) < 0 for w in windows
    )


def _refused(cell: xr.DataTree) -> Iterator[str]:
    if "metrics" not in cell.children or "mala_acceptance" not in cell["metrics"].data_vars:
        return
    if cell.attrs.get("corrected"):  # MALA's own test, which leaves no bias
        return
    metric = cell["metrics"].to_dataset()["mala_acceptance"]
    acceptance = float(metric.where(cell.dataset["diverged_at"] < 0).mean())
    if acceptance < MIN_ACCEPTANCE:
        yield (
            f"a Metropolis test would accept {acceptance:.0%} of the steps, fewer than "
            f"{MIN_ACCEPTANCE:.0%}: they are too long for the posterior's width, and the LLC comes "
            "out too high. Lower lr."
        )


def _listed(chains: NDArray[np.intp]) -> str:
    names = [str(i) for i in chains[:_MAX_NAMED]]
    more = len(chains) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
