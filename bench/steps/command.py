"""Runs the parts, prints the table, writes the results."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import perf_counter

from bench.rows import HEADER, Row
from bench.steps.parts import FLOOR, FULL, OURS, PARTS, QUICK, SIMD
from fastllc.bench.machine import facts, other_seconds

__all__ = ["main"]

# Parts in the order of the table; those with an environment run in a process of their own.
TABLE: list[tuple[str, dict[str, str] | None]] = [
    ("roofs", None),
    ("roofs", {"FASTLLC_SIMD": "avx2"}),
    ("roofs-many", None),
    ("one", None),
    ("many", None),
    ("small", None),
    ("tiny", None),
    ("tiny-family", None),
    ("rmsprop-one", None),
    ("rmsprop-many", None),
    ("family", {}),
    ("loop", None),
    ("memory", {}),
    ("growth", None),
]


def main(argv: Sequence[str] = ()) -> int:
    """Measure, print the table, and write the results where asked.

    Parameters
    ----------
    argv : sequence of str
        ``--quick``: small and short and without torch.compile, to see that it works; nothing is
        held against a target. ``--json PATH``: write every number, and a plot beside it if
        matplotlib is installed. ``--only PART``: one part, in this process.

    Returns
    -------
    int
        0; a missed target is a result, not an error.

    Examples
    --------
    >>> main(["--quick", "--only", "tiny"])
    version...
    0
    """
    parser = argparse.ArgumentParser(prog="python -m bench.steps")
    parser.add_argument("--quick", action="store_true", help="small and short, proves nothing")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every number")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    arguments = parser.parse_args(argv)
    found = {**facts(), "cores_used_by_others": {}}
    for name, value in {**found["build_info"], **found["machine"]}.items():
        print(f"{name:<14}{value}")
    print(f"\n{HEADER}")
    rows: list[Row] = []
    before = other_seconds(), perf_counter()
    for part in _measure(arguments.only, arguments.quick):
        after = other_seconds(), perf_counter()
        others = (after[0] - before[0]) / (after[1] - before[1])
        before = after
        warning = f"   ({others:.2f} cores were used by other processes)" if others > 0.05 else ""
        for title, lines in groupby(part, lambda row: row.part):
            found["cores_used_by_others"][title] = round(others, 2)
            print("", title + warning, *lines, sep="\n", flush=True)
        rows += part
    if arguments.json:
        found["rows"] = [row.to_json() for row in rows]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
        _plot(rows, arguments.json.with_suffix(".png"))
    return 0


def _measure(only: str | None, quick: bool) -> Iterator[list[Row]]:
    scale = QUICK if quick else FULL
    if only is not None:
        yield PARTS[only](scale)
        return
    for part, environment in TABLE:
        if environment is None:
            yield PARTS[part](scale)
        elif environment.get("FASTLLC_SIMD") != SIMD:
            yield _apart(part, quick, environment)


def _apart(part: str, quick: bool, environment: dict[str, str]) -> list[Row]:
    """Measure a part in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.json")
        command = [sys.executable, "-m", "bench.steps", "--only", part, "--json", str(path)]
        result = subprocess.run(
            [*command, "--quick"] if quick else command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            title = " ".join([part, *environment.values()])
            reason = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()[-1]
            return [Row(title, "not measured", note=reason)]
        return [Row.from_json(row) for row in json.loads(path.read_text())["rows"]]


def _plot(rows: list[Row], path: Path) -> None:
    """Draw the growth with the number of elements, where it was measured and can be drawn."""
    growth = [row for row in rows if row.part.startswith("growth") and row.seconds]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    if not growth:
        return
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, color in ((OURS, "#D55E00"), (FLOOR, "#0072B2")):
        line = [row for row in growth if row.name.startswith(name)]
        sizes = [row.elements for row in line]
        seconds = [float(row.to_json()["median_seconds"]) for row in line]
        upper.loglog(sizes, [1e6 * s for s in seconds], "o-", color=color, label=name)
        each = [1e9 * s / n for s, n in zip(seconds, sizes, strict=True)]
        lower.loglog(sizes, each, "o-", color=color, label=name)
    upper.set_ylabel("time a step, µs")
    lower.set_ylabel("time an element, ns")
    lower.set_xlabel("elements")
    upper.legend(frameon=False)
    for ax in (upper, lower):
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
