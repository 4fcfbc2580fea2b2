"""What is measured on each problem, and against which target."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bench.end_to_end.measure import Entry
from bench.end_to_end.problems import PROBLEMS
from fastllc.bench.problem import Problem

__all__ = ["PLANS", "Plan"]

OURS, DEVINTERP = "fastllc", "devinterp 1.3.2"

_ours = partial(Entry, module="bench.end_to_end.ours")
_devinterp = partial(Entry, module="bench.end_to_end.devinterp1")
_posteriors = partial(Entry, "posteriors", module="bench.end_to_end.posteriors_peer")
_jax = partial(Entry, "JAX", module="bench.end_to_end.jax_peer")


class Plan(NamedTuple):
    """A problem and what runs on it."""

    problem: Callable[[], Problem]
    entries: Callable[[Problem], list[Entry]]


def _rivals(
    target: str,
    *,
    compiled: str = "",
    gradient: str = "",
    jax: bool = False,
    posteriors: bool = False,
) -> Callable[[Problem], list[Entry]]:
    """Return ours and the others'. Ours also runs as few steps as devinterp, for the same LLC."""

    def entries(problem: Problem) -> list[Entry]:
        long, short = problem.steps, problem.devinterp_steps
        found = [_ours(OURS, steps=long)]
        if short < long:
            found.append(_ours(f"{OURS}, {short} steps", steps=short, against=OURS))
        paired = _ours(f"{OURS}, paired", steps=long, against=OURS)
        found.append(paired._replace(function="paired"))
        found.append(_devinterp(DEVINTERP, steps=short, against=OURS, target=target))
        if compiled:
            fused = _ours(f"{OURS}, compiled", steps=long, against=DEVINTERP, target=compiled)
            found.append(fused._replace(function="compiled"))
        if posteriors:
            found.append(_posteriors(steps=long, against=OURS, target=">= 1"))
        if jax:
            found.append(_jax(steps=long, against=OURS, target=">= 1", whole=True))
        if gradient:
            alone = _ours("its gradients alone", steps=long, against=OURS)
            found.append(alone._replace(function="gradient", target=gradient))
            other = _ours(f"{OURS}, products torch's", steps=long, against=OURS)
            found.append(other._replace(function="multiplied_by_torch"))
        return found

    return entries


def _growth(problem: Problem) -> list[Entry]:
    """Return ours with more steps and more chains, each against the least; devinterp's steps."""
    few, many = problem.devinterp_steps, problem.steps
    base = f"{OURS}, 10 chains"
    linear = partial(_ours, against=base, target="<= 1.25")
    return [
        _ours(base, steps=few, chains=10),
        linear(f"{OURS}, more steps", steps=many, chains=10),
        linear(f"{OURS}, 100 chains", steps=few, chains=100),
        linear(f"{OURS}, 1,000 chains", steps=few, chains=1000),
        _devinterp(DEVINTERP, steps=few),
        _devinterp(f"{DEVINTERP}, half", steps=few // 2, against=DEVINTERP),
    ]


PLANS = {
    "normal-crossing": Plan(PROBLEMS["normal-crossing"], _rivals(">= 60")),
    "linear-8": Plan(PROBLEMS["linear-8"], _rivals(">= 25", compiled="<= 0.04", jax=True)),
    "linear-50": Plan(PROBLEMS["linear-50"], _rivals(">= 10", compiled="<= 0.1", jax=True)),
    "mlp": Plan(PROBLEMS["mlp"], _rivals(">= 3", gradient=">= 0.85", jax=True, posteriors=True)),
    "superposition": Plan(PROBLEMS["superposition"], _rivals(">= 30")),
    "transformer": Plan(PROBLEMS["transformer"], _rivals(">= 1.3", gradient=">= 0.9")),
    "growth": Plan(PROBLEMS["linear-8"], _growth),
}
