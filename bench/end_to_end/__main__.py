"""``python -m bench.end_to_end``: whole LLC estimates, ours and the others'."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from time import perf_counter

from bench.end_to_end.measure import measure
from bench.end_to_end.plans import PLANS
from bench.end_to_end.table import HEADER
from fastllc.bench.machine import facts, other_seconds

ROUNDS = 3
PEERS = ("devinterp", "jax", "jaxlib", "posteriors", "tensordict", "torchopt")


def main(argv: Sequence[str] = ()) -> int:
    """Measure, print the table, and write the results where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.end_to_end")
    parser.add_argument("--quick", action="store_true", help="few steps, proves nothing")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every number")
    parser.add_argument("--only", choices=PLANS, help="measure one part")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of everything (%(default)s)")
    arguments = parser.parse_args(argv)
    found = {**facts(), "peers": _peers(), "cores_used_by_others": {}, "problems": {}, "rows": []}
    for name, value in {**found["build_info"], **found["machine"], **found["peers"]}.items():
        print(f"{name:<14}{value}")
    print(f"\n{HEADER}")
    for part in [arguments.only] if arguments.only else PLANS:
        problem = PLANS[part].problem()
        if arguments.quick:
            problem = replace(problem, steps=20, devinterp_steps=4)
        entries = PLANS[part].entries(problem)
        if arguments.quick:
            entries = [entry._replace(target="") for entry in entries]
        before = other_seconds(), perf_counter()
        rows = measure(problem, entries, 1 if arguments.quick else arguments.rounds)
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
    installed = {d.name: d.version for d in reversed(list(distributions()))}
    return {name: installed.get(name, "not installed") for name in PEERS}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
