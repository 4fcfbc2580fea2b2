"""Pictures of finished traces, one file each."""

from fastllc.plots.calibration import plot_calibration
from fastllc.plots.chains import plot_chain_health
from fastllc.plots.checkpoints import plot_llc_over_checkpoints
from fastllc.plots.grid import plot_grid
from fastllc.plots.trace import plot_trace

__all__ = [
    "plot_calibration",
    "plot_chain_health",
    "plot_grid",
    "plot_llc_over_checkpoints",
    "plot_trace",
]
