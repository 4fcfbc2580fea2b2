"""What a calibration found, in numbers, in words and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fastllc.calibration.judge import MAX_BIAS, MAX_CHANGE, MAX_LOSS, SPREAD, Pilot
from fastllc.summaries import decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Calibration:
    """A pilot grid and the setting that was chosen from it; printed, the reasons in words.

    Attributes
    ----------
    sampler : callable
        Of all chains.
    nbeta : float
        Inverse temperature of all chains.
    curvature : float
        Largest curvature of the loss at w*.
    pilots : tuple of Pilot
        All settings that were tried, a localization after the other, weakest first.
    chosen : Pilot or None
        None if none can be trusted.
    num_chains, num_burnin_steps, num_draws : int
        Of the run to come.
    sem_aim : float
        The standard error that the draws are for, as a share of the LLC.
    capped : bool
        Whether that would take more draws than these.
    """

    sampler: Callable[..., torch.optim.Optimizer]
    nbeta: float
    curvature: float
    pilots: tuple[Pilot, ...]
    chosen: Pilot | None
    num_chains: int
    num_burnin_steps: int
    num_draws: int
    sem_aim: float
    capped: bool

    @property
    def settings(self) -> dict[str, Any]:
        """The settings found, for `fastllc.LLCEstimator` and `fastllc.sample`.

        Raises
        ------
        CalibrationError
            If none can be trusted.
        """
        if self.chosen is None:
            raise CalibrationError(str(self), self)
        return {
            "sampler": self.sampler,
            "lr": self.chosen.lr,
            "nbeta": self.nbeta,
            "localization": self.chosen.localization,
            "num_chains": self.num_chains,
            "num_burnin_steps": self.num_burnin_steps,
            "num_draws": self.num_draws,
        }

    def __str__(self) -> str:
        return "\n".join(self._refusal() if self.chosen is None else self._reasons(self.chosen))

    def _reasons(self, chosen: Pilot) -> list[str]:
        digits = decimals(chosen.sem)
        trusted = sum(not p.trouble for p in self.pilots)
        lines = [
            f"lr {chosen.lr:.3g}, localization {chosen.localization:.3g} at nbeta "
            f"{self.nbeta:.4g}: of {len(self.pilots)} settings tried {trusted} can be trusted, "
            f"and of those {self._why(chosen)}.",
            f"Pilot LLC {chosen.llc:.{digits}f} +- {chosen.sem:.{digits}f}; along the chain it "
            f"changes by {chosen.change:+.1%} (at most {MAX_CHANGE:.0%}), the step size adds "
            f"{chosen.bias:+.1%} (at most {MAX_BIAS:.0%}).",
            f"{self.num_chains} chains, {self.num_burnin_steps} steps of burn-in, "
            f"{self.num_draws} draws for a standard error of {self.sem_aim:.1%}.",
        ]
        if self.capped:
            lines.append("That error would take more draws than these: it will be larger.")
        stronger = self._stronger(chosen)
        if stronger is not None:
            lines.append(
                f"With localization {stronger.localization:.3g} the LLC is "
                f"{stronger.llc / chosen.llc - 1:+.0%} off."
            )
        return lines + self.doubts

    @property
    def doubts(self) -> list[str]:
        """Why the estimate may come out far too small, in words; empty if nothing speaks for it."""
        chosen, found = self.chosen, list[str]()
        if chosen is None:
            return found
        if chosen.temperature < SPREAD:
            found.append(
                f"The pilot's configurational temperature is {chosen.temperature:.2f}, below "
                f"{SPREAD}: no chain that can be trusted has spread along flat directions. Where "
                "only products of several weights change the loss, the LLC can be far above this "
                "estimate: compare with longer chains."
            )
        stronger = self._stronger(chosen)
        if stronger is not None and stronger.llc < (1 - MAX_LOSS) * chosen.llc:
            found.append(
                f"{stronger.localization / chosen.localization:.2g} times the localization takes "
                f"{1 - stronger.llc / chosen.llc:.0%} off the LLC, which can be far above this "
                "estimate where localization is weaker: compare with longer chains at a weaker one."
            )
        return found

    def _stronger(self, chosen: Pilot) -> Pilot | None:
        """Return the pilot at the next localization with the same steps."""
        there = (
            p
            for p in self.pilots
            if p.lr == chosen.lr and p.localization > chosen.localization and p.llc > 0
        )
        return min(there, key=lambda p: p.localization, default=None)

    @staticmethod
    def _why(chosen: Pilot) -> str:
        if chosen.temperature < SPREAD:
            return "the chain of this one spread furthest"
        return "whose chains spread the LLC of this one depends least on lr and localization"

    def _refusal(self) -> list[str]:
        rows = [
            f"  lr {p.lr:.3g}, localization {p.localization:.3g}: {p.trouble}" for p in self.pilots
        ]
        return [
            f"no setting can be trusted at nbeta {self.nbeta:.4g}; of {len(rows)} settings:",
            *rows,
            "Train further, take larger minibatches, lower nbeta, or choose settings by hand.",
        ]

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the grid; see `fastllc.plots.plot_calibration`."""
        from fastllc.plots import plot_calibration

        return plot_calibration(self, ax)


class CalibrationError(RuntimeError):
    """No setting can be trusted; the text says why, setting by setting.

    Attributes
    ----------
    calibration : Calibration
        What was tried.
    """

    def __init__(self, message: str, calibration: Calibration) -> None:
        super().__init__(message)
        self.calibration = calibration
