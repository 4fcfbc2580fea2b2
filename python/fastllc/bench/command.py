"""Runs the comparisons, prints the table, writes numbers and picture."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from fastllc.bench.comparison import Comparison
from fastllc.bench.estimates import compare_estimates
from fastllc.bench.machine import facts, other_seconds
from fastllc.bench.problem import LINEAR, Problem
from fastllc.bench.steps import SIZES, compare_steps
from fastllc.bench.table import tables
from fastllc.kernels import cuda
from fastllc.plots.style import pyplot

__all__ = ["FULL", "Scale", "main", "measure"]


class Scale(NamedTuple):
    """How long and how large."""

    sizes: dict[str, Any]  # shapes by name
    rounds: dict[str, int]  # of each size
    problems: dict[str, int]  # steps of a chain, by name
    estimates: int  # rounds of whole estimates


FULL = Scale(SIZES, {"small": 21, "medium": 21, "large": 5}, {"linear-8": 400, "linear-50": 100}, 3)


def main(argv: Sequence[str] = ()) -> int:
    """Compare fastllc on this machine, on its GPU if it has one, in less than two minutes.

    Parameters
    ----------
    argv : sequence of str
        ``--json FILE``: write every time and ratio. ``--plot FILE``: draw them, which needs
        matplotlib.

    Returns
    -------
    int
        0.

    Raises
    ------
    SystemExit
        If a plot is asked for and matplotlib is not installed; before anything is measured.
    """
    parser = argparse.ArgumentParser(
        prog="fastllc bench",
        description="A step and whole LLCs, beside pure PyTorch, devinterp (if installed) and the "
        "memory floor, on this machine, in less than two minutes.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time and ratio")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios")
    arguments = parser.parse_args(argv)
    if arguments.plot:
        try:
            pyplot("bench --plot")
        except ImportError as error:
            parser.error(str(error))
    for path in (arguments.json, arguments.plot):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() and cuda.built() else "cpu"
    before = other_seconds(), perf_counter()
    found = measure(FULL, device)
    others = (other_seconds() - before[0]) / (perf_counter() - before[1])
    known = _known(device, others)
    print(report(found, known))
    if arguments.json:
        data = {**known, "comparisons": [each.to_json() for each in found]}
        arguments.json.write_text(json.dumps(data, indent=1) + "\n")
    if arguments.plot:
        from fastllc.bench.picture import draw

        draw(found, known["devinterp"]).savefig(arguments.plot, dpi=150)
    return 0


def measure(scale: Scale, device: str) -> list[Comparison]:
    """Make all comparisons, with a line of progress.

    Parameters
    ----------
    scale : Scale
        How long and how large.
    device : str
        Where.
    """
    parts: list[tuple[str, Callable[[], Comparison]]] = []
    for size, shapes in scale.sizes.items():
        for metrics in (False, True):
            what = f"step, {size}{', metrics' * metrics}"
            rounds = scale.rounds[size]
            parts.append(
                (what, partial(compare_steps, size, shapes, rounds, device, metrics=metrics))
            )
    for name, steps in scale.problems.items():
        problem = _moved(LINEAR[name](), device)
        parts.append((problem.name, partial(compare_estimates, problem, steps, scale.estimates)))
    found = []
    with tqdm(parts, disable=None, leave=False) as progress:
        for what, compare in progress:
            progress.set_description(what)
            found.append(compare())
            gc.collect()  # compiled functions and their tensors
    return found


def _moved(problem: Problem, device: str) -> Problem:
    problem.model.to(device)
    problem.x, problem.y = problem.x.to(device), problem.y.to(device)
    return problem


def _known(device: str, others: float) -> dict[str, Any]:
    """Return what the numbers are of: machine, build, versions."""
    known = facts()
    try:
        devinterp = importlib.metadata.version("devinterp")
    except importlib.metadata.PackageNotFoundError:
        devinterp = ""
    return {
        "date": known["date"],
        "machine": known["machine"],
        "build_info": known["build_info"],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "devinterp": devinterp,
        "cores_used_by_others": round(others, 2),
    }


def report(found: Sequence[Comparison], known: dict[str, Any]) -> str:
    """Write what was measured: the machine, the tables, what they mean.

    Parameters
    ----------
    found : sequence of Comparison
        What was measured.
    known : dict
        ``machine``, ``build_info``, ``device``, ``devinterp``, ``cores_used_by_others``.
    """
    build, machine = known["build_info"], known["machine"]
    where = "" if known["device"] == "cpu" else f"{known['device']}, "
    lines = [
        f"{where}{machine['cpu']}, {build['threads']} threads, {build['simd']}; fastllc "
        f"{build['version']}, torch {build['torch']}.",
        "",
        tables(found, known["devinterp"]),
        "",
        "Others' times are multiples of fastllc's in the same round: median (quartiles). Steps are "
        "of SGLD with localization. Behind compiled ones: what compiling took before, which is in "
        "no multiple.",
    ]
    lines += [f"{each.case}: LLC {_llcs(each)}." for each in found if each.llc]
    if known["device"] == "cpu" and torch.cuda.is_available():
        lines.append("This build has no kernels for the GPU that is here; see the README.")
    if known["cores_used_by_others"] > 0.05:
        lines.append(
            f"Other processes used {known['cores_used_by_others']} cores meanwhile: measure again "
            "when they are done."
        )
    return "\n".join(lines)


def _llcs(each: Comparison) -> str:
    return ", ".join(f"{name} {llc:.3g} ± {error:.1g}" for name, (llc, error) in each.llc.items())
