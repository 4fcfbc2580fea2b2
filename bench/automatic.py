"""Automatic settings on trained networks, whose coefficient nobody knows, against long chains.

``python -m bench.automatic [--only NAME ...] [--json FILE]``: the estimate of
``LLCEstimator(settings="auto")``, and one at the same nbeta and localization whose step size is a
quarter of the found one, with all data at each step and 40,000 steps of four chains, of which the
second half counts: what is left between them are step size, minibatches and burn-in.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.mlp import taught, teacher
from fastllc import LLCEstimator
from fastllc.bench.machine import facts

Trained = tuple[nn.Module, tuple[Tensor, Tensor], Callable[[Tensor, Tensor], Tensor]]
STEPS = 20_000


@dataclasses.dataclass(frozen=True)
class Found:
    """Both estimates with their standard errors, and the processor time of each."""

    network: str
    nbeta: float
    localization: float
    llc: float
    sem: float
    seconds: float
    long: float
    long_sem: float
    long_seconds: float


def own_teacher() -> Trained:
    """Return a ReLU net 10-20-20-10 that is its own teacher, on 1000 samples."""
    model = teacher()
    return model, taught(model, 1000), nn.functional.mse_loss


def classifier() -> Trained:
    """Return a ReLU net 20-32-5 that learnt the classes of another net from 4000 samples."""
    torch.manual_seed(0)
    x = torch.randn(4000, 20)
    labels = nn.Sequential(nn.Linear(20, 10), nn.Tanh(), nn.Linear(10, 5))(x).argmax(1)
    return trained((20, 32, 5), x, labels)


def digits() -> Trained:
    """Return a ReLU net 64-32-10 that learnt handwritten digits, 1797 of scikit-learn's."""
    torch.manual_seed(0)
    x, labels = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    return trained((64, 32, 10), (x / 16).float(), labels)


def trained(widths: tuple[int, int, int], x: Tensor, labels: Tensor) -> Trained:
    """Train a net of one hidden layer by 3000 steps of Adam."""
    inputs, hidden, outputs = widths
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3000):
        batch = torch.randint(0, len(x), (256,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
        optimizer.step()
    return model, (x, labels), nn.functional.cross_entropy


NETWORKS: dict[str, Callable[[], Trained]] = {
    "ReLU net of 850 weights, its own teacher": own_teacher,
    "classes of another net": classifier,
    "handwritten digits": digits,
}


def compare(name: str, *, steps: int = STEPS, **settings: Any) -> Found:
    """Estimate with automatic settings, and with long chains at what they found."""
    model, data, loss_fn = NETWORKS[name]()
    start = process_time()
    auto = LLCEstimator(settings="auto", seed=0, progress=False, **settings)
    auto.fit(model, data, loss_fn)
    middle = process_time()
    found = auto.calibration_.settings
    found |= {"lr": found["lr"] / 4, "num_burnin_steps": steps, "num_draws": steps}
    long = LLCEstimator(**found, batch_size=len(data[0]), seed=1, compile=True, progress=False)
    long.fit(model, data, loss_fn)
    end = process_time()
    llc, sem, long_llc, long_sem = (
        float(np.asarray(each)) for each in (auto.llc_, auto.llc_sem_, long.llc_, long.llc_sem_)
    )
    return Found(
        name,
        found["nbeta"],
        found["localization"],
        llc,
        sem,
        middle - start,
        long_llc,
        long_sem,
        end - middle,
    )


def main() -> None:
    """Compare all, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print("| network | nbeta | localization | automatic | long chains | apart | s | s |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name in arguments.only:
        each = compare(name)
        rows.append(dataclasses.asdict(each))
        print(
            f"| {name} | {each.nbeta:.0f} | {each.localization:.2g} "
            f"| {each.llc:.1f} ± {each.sem:.1f} | {each.long:.1f} ± {each.long_sem:.1f} "
            f"| {each.llc / each.long - 1:+.1%} | {each.seconds:.0f} | {each.long_seconds:.0f} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({**facts(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
