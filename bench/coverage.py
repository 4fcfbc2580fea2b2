"""How often the 95 % interval of an estimate holds what the chains converge to.

``python -m bench.coverage [--runs N] [--json FILE]``: quadratics in three directions with noisy
data, whose value at finite nbeta, step size and minibatch is exact: nothing but chance is left.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm

from fastllc import SGHMC, SGLD, RMSpropSGLD, Sampling, oracles
from fastllc.bench.machine import facts
from fastllc.convergence import interval
from fastllc.engine.study import Chain
from fastllc.engine.walkers import Walkers
from fastllc.estimators.traces import draws

NBETA, GAMMA, BATCH, CHAINS = 100.0, 5.0, 10, 4
ADAPT, EPS = 125, 0.1
ORACLE = oracles.quadratic([1.0, 0.5, 0.2], noise=0.5, n_samples=100)

WAYS: dict[str, tuple[Any, float, dict[str, float]]] = {
    "SGLD": (SGLD, 1e-2, {}),
    "RMSpropSGLD, frozen": (partial(RMSpropSGLD, adapt_steps=ADAPT, eps=EPS), 2e-3, {}),
    "SGHMC": (partial(SGHMC, friction=0.3), 4e-3, {"friction": 0.3}),
}


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Of how many runs the interval held the truth."""

    sampler: str
    shared_batches: bool
    runs: int
    covered: int
    truth: float
    mean: float
    mean_error: float
    width: float

    @property
    def p(self) -> float:
        """The probability of so many or so few, if each interval holds the truth with 95 %."""
        return float(binomtest(self.covered, self.runs, 0.95).pvalue)


class Frozen:
    """Looks at what a preconditioner has become, where a sampler has one."""

    def start(self, chains: Sequence[Chain], keys: Sequence[int], walkers: Walkers) -> None:
        """Remember the chains."""
        self._walkers = walkers

    def before(self, step: int, losses: Tensor) -> None:
        """Look away."""

    def after(self, step: int, losses: Tensor, active: NDArray[np.bool_]) -> None:
        """Look away."""

    def preconditioner(self) -> NDArray[np.float64] | None:
        """Return G of every chain, [K, d]."""
        state = self._walkers.state_dict()["sampler"]["state"][0]
        if "square_avg" not in state:
            return None
        corrected = state["square_avg"].double() / (1 - 0.99**ADAPT)
        return np.asarray(1 / (torch.sqrt(corrected) + EPS))


def study(name: str, runs: int, *, shared: bool, seed: int = 0, num_draws: int = 600) -> Coverage:
    """Run so many estimates of four chains each, and count.

    With minibatches of their own all chains of all runs are one vectorised run.
    """
    sampler, lr, exact = WAYS[name]
    sampling = Sampling(
        sampler=sampler,
        lr=lr,
        nbeta=NBETA,
        localization=GAMMA,
        num_chains=CHAINS if shared else CHAINS * runs,
        num_burnin_steps=2 * ADAPT,
        num_draws=num_draws,
        batch_size=BATCH,
        shared_batches=shared,
        engine="vectorised",
        progress=False,
    )
    found, metrics = [], []
    for index in tqdm(range(runs if shared else 1), disable=None, leave=False, desc=name):
        spectator = Frozen()
        trace = dataclasses.replace(sampling, seed=seed + index).run(
            ORACLE.model, ORACLE.data, ORACLE.loss_fn, spectator=spectator
        )
        found.append(NBETA * draws(trace).values.reshape(-1, CHAINS, num_draws))
        if (g := spectator.preconditioner()) is not None:
            metrics.append(g)
    truth = _truth(lr, exact, np.concatenate(metrics) if metrics else None)
    each = np.concatenate(found)
    bounds = np.array([interval(run, shared=shared) for run in each])
    means = each.mean(axis=(1, 2))
    return Coverage(
        sampler=name,
        shared_batches=shared,
        runs=runs,
        covered=int(((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).sum()),
        truth=truth,
        mean=float(means.mean()),
        mean_error=float(means.std(ddof=1) / np.sqrt(runs)),
        width=float((bounds[:, 1] - bounds[:, 0]).mean()),
    )


def _truth(lr: float, exact: dict[str, float], g: NDArray[np.float64] | None) -> float:
    if g is None:
        return ORACLE.exact(NBETA, GAMMA, lr=lr, batch_size=BATCH, **exact)
    # All chains as one oracle of many directions, each with the step size of its own.
    every = dataclasses.replace(
        ORACLE,
        curvatures=np.tile(ORACLE.curvatures, len(g)),
        variances=np.tile(ORACLE.variances, len(g)),
    )
    steps = (lr * g).reshape(-1).tolist()
    return every.exact(NBETA, GAMMA, lr=steps, batch_size=BATCH) / len(g)


def main() -> None:
    """Measure all, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print("| sampler | minibatches | runs | exact | mean of runs | covered | p |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for shared in (False, True):
        for name in WAYS:
            found = study(name, arguments.runs, shared=shared)
            rows.append({**dataclasses.asdict(found), "p": found.p})
            print(
                f"| {name} | {'shared' if shared else 'independent'} | {found.runs} "
                f"| {found.truth:.4f} | {found.mean:.4f} ± {found.mean_error:.4f} "
                f"| {found.covered / found.runs:.1%} | {found.p:.2g} |",
                flush=True,
            )
            if arguments.json:  # with what there is so far: all of it takes an hour
                arguments.json.write_text(json.dumps({**facts(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
