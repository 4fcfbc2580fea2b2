"""devinterp 1.3.2's ``estimate_learning_coeff_with_summary``, with its defaults."""

from __future__ import annotations

from importlib.metadata import version

from bench.end_to_end.runs import FloatArray, Run, timed
from fastllc.bench.devinterp1 import estimate
from fastllc.bench.problem import Problem

if version("devinterp") != "1.3.2":
    raise ImportError(f"version {version('devinterp')} is installed")

__all__ = ["run"]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one call."""
    burnin = steps // 2

    def llc() -> FloatArray:
        found = estimate(problem, steps - burnin, seed, burnin=burnin)
        return problem.llc(found["loss/trace"])

    return timed(llc)
