"""``python -m bench.gpu``: run the parts, print the table, write the numbers."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import groupby
from pathlib import Path

import torch

from bench.gpu.estimate import estimate
from bench.gpu.parts import PARTS
from bench.rows import HEADER, Row
from fastllc.bench.machine import facts
from fastllc.kernels import cuda

ALL = {**PARTS, "estimate": estimate}


def main(argv: list[str]) -> int:
    """Measure; a missed target is a result, not an error."""
    parser = argparse.ArgumentParser(prog="bench.gpu")
    parser.add_argument("--quick", action="store_true", help="small and short, proves nothing")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every number")
    parser.add_argument("--only", choices=ALL, nargs="+", help="measure some parts")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("bench.gpu needs a CUDA device; torch finds none", file=sys.stderr)
        return 1
    found = {**facts(), "cuda": cuda.facts()}
    for name, value in {**found["build_info"], **found["cuda"]}.items():
        print(f"{name:<20}{value}")
    print(f"\n{HEADER}")
    rows: list[Row] = []
    for name, part in ALL.items():
        if name not in (arguments.only or ALL):
            continue
        try:
            new = part(arguments.quick)
        except torch.OutOfMemoryError as error:
            new = [Row(name, "not measured", note=str(error).splitlines()[0])]
        torch.cuda.empty_cache()
        for title, lines in groupby(new, lambda row: row.part):
            print("", title, *lines, sep="\n", flush=True)
        rows += new
        if arguments.json:  # after each part, so that one that fails takes none with it
            found["rows"] = [row.to_json() for row in rows]
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


sys.exit(main(sys.argv[1:]))
