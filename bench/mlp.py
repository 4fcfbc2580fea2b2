"""SGLD and samplers with momentum against the Metropolis-corrected one, on an MLP of 850 weights.

``python -m bench.mlp [--n N ...] [--json FILE]``: the protocol of edmundlth/validating_lambdahat,
MALA_vs_SGLD.ipynb, whose numbers stand beside ours. A ReLU net 10-20-20-10 with biases is its own
teacher: weights of variance 1 / fan-in cut at two deviations, hidden biases standard normal, inputs
uniform in [-10, 10], no noise, mean squared error. nbeta = n / log n, localization 1, 10,000 steps
of 1e-5 from the teacher's weights, all of which count; minibatches of 32, for MALA all data.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastllc import BAOAB, MALA, SGHMC, SGLD, LLCEstimator
from fastllc.bench.machine import facts

WIDTHS, LR, GAMMA, BATCH, STEPS, FRICTION = (10, 20, 20, 10), 1e-5, 1.0, 32, 10_000, 0.3
TEACHERS = 5

# Step sizes with which weights diffuse as far a step as with SGLD's.
WAYS: dict[str, tuple[Any, float]] = {
    "MALA": (MALA, LR),
    "SGLD": (SGLD, LR),
    "SGHMC": (partial(SGHMC, friction=FRICTION), LR * FRICTION),
    "BAOAB": (partial(BAOAB, friction=FRICTION), LR * FRICTION / (2 - FRICTION)),
}

# Of MALA; others have 8. A step of it takes 4 ms of all chains of n = 100, 9 ms of each of 10,000.
CHAINS = {100: 8, 316: 8, 1000: 8, 3162: 4, 10_000: 4}

# Mean and standard error of the five published runs, from data/mala_v_sgld_results.json.
PUBLISHED = {
    100: {"SGLD": (54.9, 1.2), "MALA": (54.3, 1.6)},
    316: {"SGLD": (86.7, 1.2), "MALA": (86.4, 1.6)},
    1000: {"SGLD": (136.9, 1.2), "MALA": (140.0, 1.3)},
    3162: {"SGLD": (211.2, 1.5), "MALA": (215.4, 2.0)},
    10_000: {"SGLD": (294.9, 2.2), "MALA": (296.2, 5.7)},
}


@dataclasses.dataclass(frozen=True)
class Found:
    """An estimate, with the standard error of the mean of its independent chains."""

    sampler: str
    n: int
    chains: int
    llc: float
    error: float
    interval: tuple[float, float]
    acceptance: float | None
    seconds: float

    def apart(self, other: Found) -> float:
        """Return the distance to another in standard errors of the difference."""
        return (self.llc - other.llc) / math.hypot(self.error, other.error)


def teacher(widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> nn.Sequential:
    """Return a ReLU net whose own outputs are learnt."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        std = fan_in**-0.5
        nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        nn.init.normal_(linear.bias, generator=generator)
        layers += [linear, nn.ReLU()]
    nn.init.zeros_(layers[-2].bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def taught(model: nn.Module, n: int, width: int = WIDTHS[0]) -> tuple[Tensor, Tensor]:
    """Return so many inputs and the teacher's outputs."""
    inputs = np.random.RandomState(0).uniform(-10, 10, (n, width))
    x = torch.as_tensor(inputs, dtype=torch.float32)
    return x, model(x)


def estimate(
    name: str,
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    num_chains: int,
    lr: float | None = None,
    seed: int = 0,
    **settings: Any,
) -> Found:
    """Run one of the samplers by the protocol, or by it with some settings changed."""
    sampler, own = WAYS[name]
    n = len(data[0])
    exact = name == "MALA"
    settings = {"localization": GAMMA, "num_draws": STEPS, **settings}
    start = time.perf_counter()
    found = LLCEstimator(
        sampler=sampler,
        lr=own if lr is None else lr * own / LR,
        num_chains=num_chains,
        batch_size=n if exact else min(BATCH, n),
        save_acceptance=exact,
        engine="vectorised",
        seed=seed,
        progress=False,
        **settings,
    ).fit(model, data, nn.functional.mse_loss)
    seconds = time.perf_counter() - start
    low, high = np.asarray(found.llc_interval_)
    accepted = found.trace_["metrics/mala_acceptance"].mean() if exact else None
    return Found(
        sampler=name,
        n=n,
        chains=num_chains,
        llc=float(found.llc_),
        error=float(found.llc_std_) / math.sqrt(num_chains),
        interval=(float(low), float(high)),
        acceptance=None if accepted is None else float(accepted),
        seconds=seconds,
    )


def of_teachers(n: int = 1000) -> list[float]:
    """Return estimates of SGLD with other teachers: how far they are apart themselves."""
    found = []
    for seed in range(1, 1 + TEACHERS):
        model = teacher(seed=seed)
        found.append(estimate("SGLD", model, taught(model, n), num_chains=4, seed=seed).llc)
    return found


def main() -> None:
    """Measure all, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", choices=CHAINS, default=list(CHAINS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    model = teacher()
    rows = []
    print("| n | sampler | LLC | 95 % interval | from MALA | acceptance | s | published |")
    print("|---|---|---|---|---|---|---|---|")
    for n in arguments.n:
        data = taught(model, n)
        # Seeds of their own: with the same noise, chains of small steps would be the same chains.
        found = [
            estimate(name, model, data, num_chains=CHAINS[n] if name == "MALA" else 8, seed=seed)
            for seed, name in enumerate(WAYS)
        ]
        for row in found:
            rows.append({**dataclasses.asdict(row), "apart": row.apart(found[0])})
            low, high = row.interval
            published = PUBLISHED[n].get(row.sampler)
            print(
                f"| {n} | {row.sampler} | {row.llc:.1f} ± {row.error:.1f} "
                f"| {low:.1f} to {high:.1f} "
                f"| {'' if row is found[0] else f'{row.apart(found[0]):+.1f}'} "
                f"| {'' if row.acceptance is None else f'{row.acceptance:.3f}'} "
                f"| {row.seconds:.0f} | {'{} ± {}'.format(*published) if published else ''} |",
                flush=True,
            )
    others = of_teachers()
    print(f"\nOther teachers, n = 1000: {np.mean(others):.1f}, sd {np.std(others, ddof=1):.1f}")
    if arguments.json:
        result = {**facts(), "rows": rows, "other_teachers": others}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
