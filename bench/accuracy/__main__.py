"""``python -m bench.accuracy``: estimates what is missing, then makes table and picture of all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from bench.accuracy.picture import draw
from bench.accuracy.runs import Run, load, run, save
from bench.accuracy.table import table, write
from bench.accuracy.ways import LARGE, WAYS
from fastllc.oracles import CLASSES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results/accuracy-deep-linear.json"
DOCUMENT = ROOT / "docs/accuracy.md"

CELLS = [f"{drawn}/{way}" for drawn in CLASSES for way in WAYS if drawn in WAYS[way].networks]


def main(argv: Sequence[str] = ()) -> int:
    """Run what is asked for and not kept yet, keep it, and write table and picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy")
    parser.add_argument(
        "--only", nargs="+", choices=CELLS, default=[], metavar="CLASS/WAY",
        help=f"of {', '.join(map(repr, CELLS))}",
    )  # fmt: skip
    parser.add_argument("--large", action="store_true", help="the class 100K too, an hour")
    parser.add_argument("--networks", type=int, default=10**9, help="at most, of a class and way")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no estimate after these")
    parser.add_argument("--json", type=Path, default=RESULTS, help="results (%(default)s)")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="table (%(default)s)")
    arguments = parser.parse_args(argv)
    asked = arguments.only or [
        cell for cell in CELLS if arguments.large or cell.split("/")[0] not in LARGE
    ]
    end, kept = monotonic() + 60 * arguments.minutes, load(arguments.json)
    for cell in asked:
        drawn, name = cell.split("/")
        for seed in range(min(WAYS[name].networks[drawn], arguments.networks)):
            if (drawn, name, seed) in kept or monotonic() > end:
                continue
            try:
                found = run(drawn, WAYS[name], seed)
            except ImportError as error:
                print(f"{cell}: {error}")
                break
            kept[found.key] = found
            save(arguments.json, kept.values())
            print(_said(found), flush=True)
    text = table(kept.values())
    print(text)
    write(arguments.document, text)
    draw(kept.values(), arguments.document.with_suffix(".png"))
    return 0


def _said(run: Run) -> str:
    found, network = run.estimate, "-".join(map(str, run.widths))
    return (
        f"{run.drawn}/{run.way}, seed {run.seed}, {network} of rank {run.rank}: "
        f"{found.error or f'{found.llc:.2f} ({found.low:.2f} to {found.high:.2f})'}, "
        f"formula {run.truth:g}, {found.seconds:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
