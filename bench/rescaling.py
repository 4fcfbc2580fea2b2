"""The LLC of a ReLU net under rescaling of its hidden units, by SGLD and MALA.

``python -m bench.rescaling [--json FILE]``: (w_in, b, w_out) -> (a w_in, a b, w_out / a) leaves the
function and the local learning coefficient as they are. Step size and localization are isotropic
and do not follow; what they do to a quadratic loss of the same curvatures stands beside estimates.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastllc import MALA, SGLD, LLCEstimator, oracles
from fastllc.bench.machine import facts

WIDTH, SAMPLES, NBETA, GAMMA = 4, 128, 1e4, 10.0
SAMPLERS = {"SGLD": SGLD, "MALA": MALA}
SCALES, LRS = (0.5, 1.0, 2.0, 4.0), (1.5e-5, 3e-5)

# All directions but one for each hidden unit are quadratic.
EXACT = (2 * WIDTH * (WIDTH + 1) - WIDTH) / 2


@dataclasses.dataclass(frozen=True)
class Found:
    """An estimate at one scale and step size, and that of a quadratic of the same curvatures.

    `error` is the standard error of the mean of the chains, `stiffest` the step size times the
    largest curvature of the posterior: in that direction the variance of SGLD is
    1 / (1 - stiffest / 4) times too large.
    """

    sampler: str
    lr: float
    scale: float
    llc: float
    error: float
    interval: tuple[float, float]
    acceptance: float | None
    quadratic: float
    stiffest: float


def problem() -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """Return a net and what it says; orthogonal layers make its loss well conditioned."""
    generator = torch.Generator().manual_seed(0)
    hidden, out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    for layer in (hidden, out):
        nn.init.orthogonal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    model = nn.Sequential(hidden, nn.ReLU(), out)
    x = torch.randn(SAMPLES, WIDTH, generator=generator)
    with torch.no_grad():
        return model, (x, model(x))


def rescaled(model: nn.Sequential, scale: float) -> dict[str, Tensor]:
    """Return the weights that compute the same with so many times larger hidden units."""
    factors = {"0.weight": scale, "0.bias": scale, "2.weight": 1 / scale, "2.bias": 1.0}
    return {name: factors[name] * w for name, w in model.state_dict().items()}


def curvatures(
    model: nn.Sequential, weights: dict[str, Tensor], data: tuple[Tensor, Tensor]
) -> NDArray[np.float64]:
    """Return the eigenvalues of the Hessian, that of a loss of zero: 2 E[J'J]."""

    def outputs(weights: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(model, weights, (data[0].double(),))
        return found

    doubles = {name: w.double() for name, w in weights.items()}
    parts = torch.func.jacrev(outputs)(doubles)
    jacobian = torch.cat([part.flatten(0, 1).flatten(1) for part in parts.values()], 1)
    found = torch.linalg.eigvalsh(2 * jacobian.T @ jacobian / len(jacobian)).numpy()
    return np.asarray(np.where(found > 1e-9 * found.max(), found, 0.0))


def study(
    name: str,
    scales: Sequence[float] = SCALES,
    lrs: Sequence[float] = LRS,
    *,
    num_chains: int = 8,
    num_burnin_steps: int = 6000,
    num_draws: int = 6000,
    seed: int = 0,
) -> list[Found]:
    """Run one sampler at all scales and step sizes at once."""
    model, data = problem()
    found = LLCEstimator(
        sampler=SAMPLERS[name],
        lr=list(lrs),
        nbeta=NBETA,
        localization=GAMMA,
        num_chains=num_chains,
        num_burnin_steps=num_burnin_steps,
        num_draws=num_draws,
        batch_size=SAMPLES,
        save_acceptance=name == "MALA",
        engine="vectorised",
        seed=seed,
        progress=False,
    ).fit(
        model,
        data,
        nn.functional.mse_loss,
        checkpoints={str(scale): rescaled(model, scale) for scale in scales},
    )
    rows = []
    for i, scale in enumerate(scales):
        h = curvatures(model, rescaled(model, scale), data)
        for j, lr in enumerate(lrs):
            low, high = np.asarray(found.llc_interval_)[i, j]
            accepted = None
            if name == "MALA":
                accepted = float(found.trace_["metrics"].dataset["mala_acceptance"][i, j].mean())
            rows.append(
                Found(
                    sampler=name,
                    lr=lr,
                    scale=scale,
                    llc=float(np.asarray(found.llc_)[i, j]),
                    error=float(np.asarray(found.llc_std_)[i, j]) / math.sqrt(num_chains),
                    interval=(float(low), float(high)),
                    acceptance=accepted,
                    quadratic=oracles.quadratic(h.tolist()).exact(
                        NBETA, GAMMA, lr=lr if name == "SGLD" else None
                    ),
                    stiffest=lr * (NBETA * float(h.max()) + GAMMA),
                )
            )
    return rows


def main() -> None:
    """Measure all, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print("| sampler | lr | a | stiffest | LLC | 95 % interval | quadratic | acceptance |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name in SAMPLERS:
        start = time.perf_counter()
        found = study(name)
        seconds = time.perf_counter() - start
        for row in sorted(found, key=lambda row: row.lr):
            rows.append(dataclasses.asdict(row))
            low, high = row.interval
            print(
                f"| {name} | {row.lr:g} | {row.scale:g} | {row.stiffest:.2f} | {row.llc:.2f} "
                f"| {low:.2f} to {high:.2f} | {row.quadratic:.2f} "
                f"| {'' if row.acceptance is None else f'{row.acceptance:.3f}'} |",
                flush=True,
            )
        print(f"{name}: {seconds:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({**facts(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
