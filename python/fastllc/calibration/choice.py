"""The setting to take of those that were tried, and how many draws of it."""

from __future__ import annotations

from collections.abc import Sequence

from fastllc.calibration.judge import SPREAD, Pilot

__all__ = ["NUM_CHAINS", "choose", "num_draws"]

NUM_CHAINS = 4
MIN_DRAWS, MAX_DRAWS = 4500, 30_000
_SMALL = 0.05


def choose(pilots: Sequence[Pilot]) -> Pilot | None:
    """Return the setting to take, None if there is none; if no chains spread, of the widest."""
    trusted = [p for p in pilots if not p.trouble]
    if not trusted:
        return None
    wide = min(SPREAD, max(p.temperature for p in trusted))
    spread = [p for p in trusted if p.temperature >= wide]
    weakest = min(p.localization for p in spread)
    there = [p for p in spread if p.localization == weakest]
    first = min(there, key=lambda p: (_error(p), -p.lr))
    return min(
        spread,
        key=lambda p: (_error(p) + abs(p.llc / first.llc - 1), p.localization, -p.lr),
    )


def _error(pilot: Pilot) -> float:
    """Return bias and standard error of a pilot, of which small ones are all the same."""
    return max(abs(pilot.bias), _SMALL) + max(pilot.sem / pilot.llc, _SMALL)


def num_draws(chosen: Pilot | None, num_steps: int, sem: float) -> tuple[int, bool]:
    """Return how many draws `sem` takes, and whether it would take more."""
    least = max(MIN_DRAWS, num_steps)
    if chosen is None:
        return least, False
    wanted = num_steps // 2 * (chosen.sem / (sem * chosen.llc)) ** 2 / NUM_CHAINS
    return int(min(max(wanted, least), MAX_DRAWS)), wanted > MAX_DRAWS
