"""The grid of a calibration, with the chosen setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastllc.plots.style import VERMILLION, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fastllc.calibration import Calibration

__all__ = ["plot_calibration"]


def plot_calibration(calibration: Calibration, ax: Axes | None = None) -> Figure:
    """Draw a map of the pilots' LLC over ``lr`` and ``localization``, and frame the chosen one.

    Each cell has the LLC, and below it what speaks against the setting. The colours span the LLCs
    of those that can be trusted, or of all if there are none.

    Parameters
    ----------
    calibration : Calibration
        What `fastllc.calibrate` returned.
    ax : matplotlib Axes, optional
        Where to draw. None makes a figure.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    plt = pyplot("plot_calibration")
    from matplotlib.patches import Rectangle

    pilots = calibration.pilots
    lrs, column = np.unique([p.lr for p in pilots], return_inverse=True)
    strengths, row = np.unique([p.localization for p in pilots], return_inverse=True)
    if ax is None:
        size = 2.4 + 1.7 * len(lrs), 1.8 + 0.75 * len(strengths)
        ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    values = np.full((len(strengths), len(lrs)), np.nan)
    values[row, column] = [p.llc for p in pilots]
    shown = [p.llc for p in pilots if not p.trouble] or values[np.isfinite(values)].tolist() or [0]
    low, high = min(shown), max(shown)
    if low == high:
        low, high = low - 1, high + 1
    image = ax.imshow(
        np.clip(values, low, high), origin="lower", aspect="auto", vmin=low, vmax=high
    )
    for x, y, pilot in zip(column, row, pilots, strict=True):
        found = "no LLC" if np.isnan(pilot.llc) else f"{pilot.llc:.3g} $\\pm$ {pilot.sem:.2g}"
        fill = image.cmap(image.norm(np.clip(pilot.llc, low, high)))
        dark = np.isfinite(pilot.llc) and float(np.dot(fill[:3], (0.3, 0.59, 0.11))) < 0.5
        ax.text(
            x,
            y,
            f"{found}\n{_short(pilot.trouble)}".rstrip(),
            ha="center",
            va="center",
            fontsize="x-small",
            color="white" if dark else "black",
        )
        if pilot is calibration.chosen:
            corner = x - 0.5, y - 0.5
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec=VERMILLION, lw=3, zorder=3))
    ax.set_xticks(range(len(lrs)), [f"{lr:.2g}" for lr in lrs])
    ax.set_yticks(range(len(strengths)), [f"{strength:.2g}" for strength in strengths])
    ax.set_xlabel("lr")
    ax.set_ylabel("localization")
    chosen = "no setting can be trusted" if calibration.chosen is None else "framed: chosen"
    ax.set_title(f"Pilot LLC, and what speaks against it; {chosen}", fontsize="medium")
    figure: Figure = ax.get_figure(root=True)  # type: ignore[assignment]
    figure.colorbar(image, ax=ax, label="LLC (dimensionless)")
    return figure


def _short(trouble: str) -> str:
    """Break a text at its comma or middle, to fit a cell."""
    if len(trouble) <= 24:
        return trouble
    words, lines = trouble.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 24:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
