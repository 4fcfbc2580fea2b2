"""What was measured side by side, and the ratios within each round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fastllc.bench.timing import quartiles

__all__ = ["COMPILED", "DEVINTERP", "FLOOR", "LOOP", "OURS", "OURS_COMPILED", "Comparison"]

OURS, COMPILED, DEVINTERP, FLOOR = "fastllc", "torch.compile", "devinterp", "memory floor"
LOOP, OURS_COMPILED = "torch, chain by chain", "fastllc, compiled"


@dataclass
class Comparison:
    """One case by everybody, in interleaved rounds.

    Attributes
    ----------
    kind, case : str
        The table it belongs to, and its row.
    seconds : dict of str to list of float
        Seconds a call, one number for each round, by who was measured. Those whose names begin with
        ``torch`` are pure PyTorch.
    missing : dict of str to str
        Why others could not be measured.
    compile_seconds : dict of str to float
        What compiling took, which is in no `seconds`.
    llc : dict of str to (float, float)
        Of whole estimates: mean and standard error.

    Examples
    --------
    >>> seconds = {"fastllc": [1.0, 2.0], "torch eager": [3.0, 6.0], "torch.compile": [2.0, 4.0]}
    >>> found = Comparison("step", "small", seconds)
    >>> found.fastest, found.ratio(found.fastest)
    ('torch.compile', (2.0, 2.0, 2.0))
    """

    kind: str
    case: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    compile_seconds: dict[str, float] = field(default_factory=dict)
    llc: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def fastest(self) -> str:
        """The pure PyTorch of the smallest median ratio."""
        pure = [name for name in self.seconds if name.startswith("torch")]
        return min(pure, key=lambda name: self.ratio(name)[1])

    def ratio(self, name: str) -> tuple[float, float, float]:
        """Return the time of `name` divided by fastllc's of the same round: quartiles."""
        return quartiles(np.divide(self.seconds[name], self.seconds[OURS]))

    def to_json(self) -> dict[str, Any]:
        """Return all fields, with what follows from them."""
        return {
            **asdict(self),
            "fastest_pure_pytorch": self.fastest,
            "median_seconds": {n: float(np.median(s)) for n, s in self.seconds.items()},
            "ratios": {
                name: dict(zip(("low", "median", "high"), self.ratio(name), strict=True))
                for name in self.seconds
                if name != OURS
            },
        }
