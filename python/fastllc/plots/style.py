"""What the pictures share: matplotlib on demand, colours, legends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fastllc.summaries import decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito 2008, "Color universal design": told apart by colour-blind readers.
VERMILLION = "#D55E00"
BLUE = "#0072B2"
PURPLE = "#CC79A7"
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")


def pyplot(caller: str) -> Any:
    """``matplotlib.pyplot``, imported now; `caller` is named in the error if there is none."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib: pip install 'fastllc[plots]'", name="matplotlib"
        ) from error
    return plt


def colors(number: int) -> NDArray[np.floating]:
    """Colours of an ordered sequence of lines, shape [number, 4]."""
    from matplotlib import colormaps

    # The yellow end of viridis is too pale for lines on white.
    return np.asarray(colormaps["viridis"](np.linspace(0.0, 0.85, number)))


def legend(ax: Axes) -> None:
    """Put the legend at the right of the axes, where it hides nothing."""
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def estimate(found: xr.Dataset) -> str:
    """Write the `llc` of a single cell with its standard error."""
    if not found["num_chains"]:
        return "unknown: no chain left"
    value, sem = float(found["llc"]), float(found["sem"])
    digits = decimals(sem)
    return f"{value:.{digits}f} $\\pm$ {sem:.{digits}f}"


def refuse_dimensions(trace: xr.DataTree, *dims: str) -> None:
    """Raise a ValueError if `trace` has one of `dims`, and say how to select."""
    found = {dim: trace.sizes[dim] for dim in dims if dim in trace.sizes}
    if found:
        have = " and ".join(f"{size} {dim}s" for dim, size in found.items())
        chosen = ", ".join(f"{dim}=0" for dim in found)
        one = " and ".join(f"one {dim}" for dim in dims)
        raise ValueError(
            f"trace must be of {one}, got {have}: select one, as in trace.isel({chosen})"
        )
