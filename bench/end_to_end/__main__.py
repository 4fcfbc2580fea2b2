"""``python -m bench.end_to_end``: whole LLC estimates, ours and the others'."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from bench.end_to_end.measure import measure
from bench.end_to_end.plans import PLANS
from bench.end_to_end.table import HEADER
from fastllc.bench.machine import facts, other_seconds

ROUNDS = 5
PEERS = ("devinterp", "jax", "jaxlib", "posteriors", "tensordict", "torchopt")


def main(argv: Sequence[str] = ()) -> int:
    """Measure, print the table, and write the results where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.end_to_end")
    parser.add_argument("--quick", action="store_true", help="few steps, proves nothing")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every number")
    parser.add_argument("--only", choices=PLANS, help="measure one part")
    arguments = parser.parse_args(argv)
    found = {**facts(), "peers": _peers(), "cores_used_by_others": {}, "problems": {}, "rows": []}
    for name, value in {**found["build_info"], **found["machine"], **found["peers"]}.items():
        print(f"{name:<14}{value}")
    print(f"\n{HEADER}")
    for part in [arguments.only] if arguments.only else PLANS:
        problem, entries = PLANS[part]
        problem = problem()
        if arguments.quick:
            problem = replace(problem, steps=20, devinterp_steps=4)
        chosen = entries(problem)
        if arguments.quick:
            chosen = [entry._replace(target="") for entry in chosen]
        before = other_seconds(), perf_counter()
        rows = measure(problem, chosen, 1 if arguments.quick else ROUNDS)
        others = (other_seconds() - before[0]) / (perf_counter() - before[1])
        warning = f"   ({others:.2f} cores were used by other processes)" if others > 0.05 else ""
        print("", f"{part}: {problem}{warning}", *rows, sep="\n", flush=True)
        found["cores_used_by_others"][part] = round(others, 2)
        found["problems"][part] = problem.to_json()
        found["rows"] += [{"part": part, **row.to_json()} for row in rows]
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _peers() -> dict[str, str]:
    """Return the versions of the others' packages that are installed."""
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
