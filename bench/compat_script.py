"""``python -m bench.compat_script``: a devinterp 1 script, with its own imports and with ours.

A classifier of 28 x 28 images, a shuffling DataLoader, an evaluate function and callbacks; both in
processes of their own, in turn, with the round as seed. Prints seconds, their ratio, and whether
the coefficients agree. Needs devinterp 1.3.2, as ``make bench-end-to-end`` installs it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fastllc.bench.machine import facts

PACKAGES = {"devinterp": "devinterp", "fastllc": "fastllc.compat.devinterp1"}
CALLBACKS = ("losses", "all", "user")
CHAINS, DRAWS, BURNIN = 10, 200, 200


def problem(samples: int = 2000) -> tuple[nn.Module, TensorDataset]:
    """Return a trained classifier and its data, of ten classes that overlap."""
    torch.manual_seed(0)
    y = torch.randint(10, (samples,))
    x = torch.randn(10, 1, 28, 28)[y] * 0.2 + torch.randn(samples, 1, 28, 28)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(200):
        adam.zero_grad()
        F.cross_entropy(model(x), y).backward()
        adam.step()
    return model, TensorDataset(x, y)


def script(package: str, callbacks: str, draws: int, seed: int) -> tuple[float, float, float]:
    """Run the script; return its seconds, and mean and deviation of the coefficients."""
    warnings.simplefilter("ignore")
    names = ("slt.sampler", "slt.wbic", "slt.llc", "slt.trace", "slt.mala", "slt.norms", "utils")
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    utils: Any = modules["utils"]
    model, data = problem()
    loader = DataLoader(data, batch_size=64, shuffle=True)
    nbeta = utils.default_nbeta(loader)
    online = modules["slt.llc"].OnlineLLCEstimator(CHAINS, draws, 0.0, nbeta=nbeta)
    asked: list[Any] = [
        modules["slt.wbic"].OnlineWBICEstimator(CHAINS, draws, len(data)),
        online,
        modules["slt.trace"].OnlineTraceStatistics(online, "llcs"),
    ]
    if callbacks == "all":
        asked += [
            modules["slt.mala"].MalaAcceptanceRate(CHAINS, draws, 1e-4, nbeta=nbeta),
            modules["slt.norms"].WeightNorm(CHAINS, draws),
            modules["slt.norms"].GradientNorm(CHAINS, draws),
        ]
    if callbacks == "user":
        distances = []
        asked.append(lambda model, **known: distances.append(model[1].weight.norm().item()))
    start = perf_counter()
    results = modules["slt.sampler"].estimate_learning_coeff_with_summary(
        model,
        loader,
        callbacks=asked,
        evaluate=utils.evaluate_ce,
        optimizer_kwargs={"lr": 1e-4, "nbeta": nbeta, "localization": 100.0},
        num_draws=draws,
        num_chains=CHAINS,
        num_burnin_steps=min(BURNIN, draws),
        init_loss=utils.get_init_loss_full_batch(loader, model, utils.evaluate_ce, "cpu"),
        seed=seed,
        verbose=False,
    )
    return perf_counter() - start, results["llc/mean"], results["llc/std"]


def main(argv: Sequence[str] = ()) -> int:
    """Measure, print, and write the results where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.compat_script")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=DRAWS)
    arguments = parser.parse_args(argv)
    found: dict[str, Any] = {**facts(), "runs": {}}
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as theirs,
        ProcessPoolExecutor(1, get_context("spawn")) as ours,
    ):
        pools = dict(zip(PACKAGES, (theirs, ours), strict=True))
        for callbacks in CALLBACKS:
            runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PACKAGES}
            for turn in range(-1, arguments.rounds):
                for name, package in PACKAGES.items():
                    draws = arguments.draws if turn >= 0 else 10
                    call = pools[name].submit(script, package, callbacks, draws, max(0, turn))
                    runs[name] += [call.result()] * (turn >= 0)
            found["runs"][callbacks] = runs
            print(f"{callbacks:<8}{_row(runs)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _row(runs: dict[str, list[tuple[float, float, float]]]) -> str:
    """Say how long both took, how often one fits the other, and the coefficients' distance.

    That is in units of its standard error, from the deviation over chains.
    """
    theirs, ours = (runs[name] for name in PACKAGES)
    ratio = statistics.median(a[0] / b[0] for a, b in zip(theirs, ours, strict=True))
    seconds = [statistics.median(run[0] for run in each) for each in (theirs, ours)]
    llc = [statistics.mean(run[1] for run in each) for each in (theirs, ours)]
    variance = sum(run[2] ** 2 / CHAINS / len(each) ** 2 for each in (theirs, ours) for run in each)
    return (
        f"devinterp {seconds[0]:.2f} s, LLC {llc[0]:.3f}   fastllc {seconds[1]:.2f} s, "
        f"LLC {llc[1]:.3f}   x {ratio:.1f}, {(llc[1] - llc[0]) / variance**0.5:+.1f} errors"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
