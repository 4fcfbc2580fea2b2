"""Runs that are kept: what is known of a network, and one estimate of it, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.estimates import Estimate
from bench.accuracy.ways import Way
from fastllc.bench.machine import facts
from fastllc.oracles import CLASSES, draw_class

__all__ = ["Run", "load", "run", "save"]


@dataclass(frozen=True)
class Run:
    """A network of a class, and its estimate.

    Attributes
    ----------
    drawn, way, seed : str, str, int
        Class, way and seed, of the network and of the chains: no two runs share all of them.
    widths, rank : list of int, int
        Units of each layer, inputs first; rank of the product.
    truth, attained : float, bool
        The coefficient by the formula, and whether it is that of these weights. If not, it is a
        lower bound, and so is half the rank of the Jacobian.
    multiplicity, jacobian_rank : int
        As in `fastllc.oracles`.
    estimate : Estimate
        What came out.
    """

    drawn: str
    way: str
    seed: int
    widths: list[int]
    rank: int
    truth: float
    attained: bool
    multiplicity: int
    jacobian_rank: int
    estimate: Estimate

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from all others."""
        return self.drawn, self.way, self.seed


def run(drawn: str, way: Way, seed: int) -> Run:
    """Draw the network of a seed and estimate its coefficient."""
    oracle = draw_class(drawn, seed, aligned=way.aligned)
    layers = oracle.layers()
    return Run(
        drawn,
        way.name,
        seed,
        [layers[0].shape[1], *(len(layer) for layer in layers)],
        oracle.rank,
        float(oracle.llc),
        oracle.attained,
        oracle.multiplicity,
        oracle.jacobian_rank(),
        way.estimate(oracle, way.settings(CLASSES[drawn]), seed),
    )


def load(path: Path) -> dict[tuple[str, str, int], Run]:
    """Return the runs of a file by their keys; none where there is no file."""
    if not path.exists():
        return {}
    runs = [_run(entry) for entry in json.loads(path.read_text())["runs"]]
    return {found.key: found for found in runs}


def save(path: Path, runs: Iterable[Run]) -> None:
    """Write runs, a line each, and the machine; a file that is there is replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(_without_nan(asdict(found)), allow_nan=False) for found in runs)
    beside = path.with_suffix(".new")
    beside.write_text(f'{{"facts": {json.dumps(facts())},\n"runs": [\n{lines}\n]}}\n')
    beside.replace(path)


def _run(entry: dict[str, Any]) -> Run:
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in entry["estimate"].items()}
    return Run(**{**entry, "estimate": Estimate(**values)})


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
