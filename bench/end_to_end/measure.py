"""Estimates in turn, everyone's in a process of its own, so that threads and memory are theirs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from typing import NamedTuple

from bench.end_to_end.runs import Run
from bench.end_to_end.table import Row
from fastllc.bench.problem import Problem

__all__ = ["Entry", "measure"]


class Entry(NamedTuple):
    """What to measure, and what to divide its time by."""

    name: str
    module: str
    steps: int
    against: str = ""
    target: str = ""
    whole: bool = False  # with compilation
    function: str = "run"
    chains: int | None = None  # None: as the problem says


def measure(problem: Problem, entries: Sequence[Entry], rounds: int) -> list[Row]:
    """Run all entries in turn, A B C A B C, each module in one process, with the round as seed.

    A shorter run of everything comes first and is not kept: it starts threads and loads code.
    """
    rows = [
        Row(
            problem.name,
            entry.name,
            entry.chains or problem.chains,
            entry.steps,
            against=entry.against,
            target=entry.target,
            whole=entry.whole,
        )
        for entry in entries
    ]
    with ExitStack() as stack:
        pools = {
            module: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
            for module in dict.fromkeys(entry.module for entry in entries)
        }
        for turn in range(-1, rounds):
            for entry, row in zip(entries, rows, strict=True):
                if row.note:
                    continue
                steps = max(2, entry.steps // 10) if turn < 0 else entry.steps
                given = replace(problem, chains=row.chains)
                call = pools[entry.module].submit(
                    _run, entry.module, entry.function, given, steps, max(0, turn)
                )
                try:
                    run = call.result()
                except ImportError as error:
                    row.note = f"not installed: {error}"
                else:
                    row.runs += [run] * (turn >= 0)
    for row in rows:
        row.relate(rows)
    return rows


def _run(module: str, function: str, problem: Problem, steps: int, seed: int) -> Run:
    found: Run = getattr(importlib.import_module(module), function)(problem, steps, seed)
    return found
