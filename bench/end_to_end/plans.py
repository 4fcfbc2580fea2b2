"""What is measured on each problem, and against which target."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.end_to_end.measure import Entry
from bench.end_to_end.problems import PROBLEMS, Problem

__all__ = ["PLANS", "Plan"]

OURS, DEVINTERP = "fastllc", "devinterp 1.3.2"


class Plan(NamedTuple):
    """A problem and its entries."""

    problem: Callable[[], Problem]
    entries: Callable[[Problem], list[Entry]]


def _ours(steps: int, name: str = OURS, **options: str | int) -> Entry:
    return Entry(name, "bench.end_to_end.ours", steps, **options)


def _rivals(
    devinterp: str, *, gradient: str = "", jax: bool = False, posteriors: bool = False
) -> Callable[[Problem], list[Entry]]:
    """Return ours and the others'. Ours also runs as few steps as devinterp, for the same LLC."""

    def entries(problem: Problem) -> list[Entry]:
        long, short = problem.steps, problem.devinterp_steps
        found = [_ours(long)]
        if short < long:
            found.append(_ours(short, f"{OURS}, {short} steps", against=OURS))
        found.append(
            Entry(DEVINTERP, "bench.end_to_end.devinterp1", short, OURS, f">= {devinterp}")
        )
        if posteriors:
            found.append(Entry("posteriors", "bench.end_to_end.posteriors_peer", long, OURS, ">= 1"))
        if jax:
            found.append(Entry("JAX", "bench.end_to_end.jax_peer", long, OURS, ">= 1", whole=True))
        if gradient:
            found.append(
                _ours(
                    short,
                    "its gradients alone",
                    against=OURS,
                    target=f">= {gradient}",
                    function="gradient",
                )
            )
        return found

    return entries


def _growth(problem: Problem) -> list[Entry]:
    """Return ours with more steps and chains, each against the least; devinterp's steps too."""
    few, many = problem.devinterp_steps, problem.steps
    base = f"{OURS}, 10 chains"
    return [
        _ours(few, base, chains=10),
        _ours(many, f"{OURS}, {many // few} x steps", against=base, target="<= 1.25", chains=10),
        _ours(few, f"{OURS}, 100 chains", against=base, target="<= 1.25", chains=100),
        _ours(few, f"{OURS}, 1,000 chains", against=base, target="<= 1.25", chains=1000),
        Entry(DEVINTERP, "bench.end_to_end.devinterp1", few),
        Entry(f"{DEVINTERP}, half", "bench.end_to_end.devinterp1", few // 2, DEVINTERP),
    ]


PLANS = {
    "normal-crossing": Plan(PROBLEMS["normal-crossing"], _rivals("60")),
    "linear-8": Plan(PROBLEMS["linear-8"], _rivals("25", jax=True)),
    "linear-50": Plan(PROBLEMS["linear-50"], _rivals("10", jax=True)),
    "mlp": Plan(PROBLEMS["mlp"], _rivals("3", gradient="0.85", jax=True, posteriors=True)),
    "superposition": Plan(PROBLEMS["superposition"], _rivals("30")),
    "transformer": Plan(PROBLEMS["transformer"], _rivals("1.3", gradient="0.9")),
    "growth": Plan(PROBLEMS["linear-8"], _growth),
}
