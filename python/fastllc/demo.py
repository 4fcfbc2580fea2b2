"""The main job on real data: the LLC of a small network, fused and in pure PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastllc.diagnostics import Summary, decimals
from fastllc.engine.sampling import default_nbeta
from fastllc.estimators.llc import LLCEstimator
from fastllc.info import build_info
from fastllc.peers import TorchSGLD
from fastllc.samplers.sgld import SGLD

__all__ = ["main"]

Sampler = Callable[..., torch.optim.Optimizer]

SETTINGS: dict[str, Any] = {
    "lr": 1e-3,
    "localization": 10.0,
    "num_chains": 8,
    "num_burnin_steps": 1000,
    "num_draws": 2000,
    "batch_size": 64,
    "seed": 0,
}


@dataclass(frozen=True)
class Run:
    """One estimate and what it took."""

    estimator: LLCEstimator
    summary: Summary
    seconds: float

    @property
    def steps_per_second(self) -> float:
        """Whole sampling steps, gradient included, in a second."""
        return float(self.estimator.trace_["steps"]["loss"].size / self.seconds)


def main(output: str | Path = "trace.png", *, progress: bool = True) -> None:
    """Train, estimate twice, compare, and write the trace plot.

    Parameters
    ----------
    output : path, default "trace.png"
        Where the trace plot of the fused chains goes.
    progress : bool, default True
        Show progress bars.

    Raises
    ------
    ImportError
        If scikit-learn or matplotlib is not installed.
    """
    with _one_thread():
        data = load_digits()
        n = len(data[1])
        model = train(data)
        loss, correct = _score(model, data)
        settings = SETTINGS | {"nbeta": default_nbeta(n)}
        print(f"data      scikit-learn digits, {n} images of 8 x 8, 10 classes")
        print(f"model     {_describe(model)}, trained to loss {loss:.5f}, accuracy {correct:.1%}")
        print("settings  " + ", ".join(f"{k} {v:.6g}" for k, v in settings.items()))
        print("build     " + "fastllc {version}, {simd}, torch {torch}".format(**build_info()))
        samplers: list[Sampler] = [SGLD, TorchSGLD]
        fused, eager = (run(model, data, s, settings | {"progress": progress}) for s in samplers)
        print("\n" + report(fused, eager, *time_steps(model, samplers, settings)))
    for name, each in (("fastllc", fused), ("pure PyTorch", eager)):
        for text in each.summary.warnings:
            print(f"warning ({name}): {text}")
    fused.estimator.plot_trace().savefig(output, dpi=150)
    print(f"\ntrace plot: {output}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: no step here is long enough to share, and a second only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_digits() -> tuple[Tensor, Tensor]:
    """Return inputs ``[1797, 64]`` in [0, 1] and labels of scikit-learn's handwritten digits."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "the demo needs scikit-learn: pip install 'fastllc[demo]'", name="sklearn"
        ) from error
    images, labels = datasets.load_digits(return_X_y=True)
    return torch.from_numpy(images / 16.0).float(), torch.from_numpy(labels).long()


def train(data: tuple[Tensor, Tensor], *, hidden: int = 256, epochs: int = 1000) -> nn.Module:
    """Train an MLP by full-batch Adam until the gradient has all but vanished.

    Parameters
    ----------
    data : (Tensor, Tensor)
        Inputs ``[n, 64]`` and labels ``[n]``.
    hidden : int, default 256
        Width of the hidden layer.
    epochs : int, default 1000
        Steps of Adam, its rate falling to zero.

    Returns
    -------
    nn.Module
        The same weights every time; the caller's random state is left alone.
    """
    inputs, labels = data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    return model


def run(
    model: nn.Module, data: tuple[Tensor, Tensor], sampler: Sampler, settings: dict[str, Any]
) -> Run:
    """Estimate the LLC of `model` with one sampler, and time it."""
    estimator = LLCEstimator(sampler=sampler, **settings)
    start = time.perf_counter()
    estimator.fit(model, data, nn.functional.cross_entropy)
    seconds = time.perf_counter() - start
    summary = estimator.summary()
    assert isinstance(summary, Summary)  # of one model and setting
    return Run(estimator, summary, seconds)


def time_steps(
    model: nn.Module, samplers: list[Sampler], settings: dict[str, Any], *, repeats: int = 2000
) -> list[float]:
    """Return the median seconds of ``step()`` alone, the samplers taking turns."""
    optimizers = []
    for sampler in samplers:
        params = [p.detach().clone().requires_grad_() for p in model.parameters()]
        for p in params:
            p.grad = torch.zeros_like(p).normal_(std=1e-3)
        optimizers.append(
            sampler(
                params,
                lr=settings["lr"],
                nbeta=settings["nbeta"],
                localization=settings["localization"],
                seed=0,
            )
        )
    seconds: list[list[float]] = [[] for _ in optimizers]
    for _ in range(repeats):
        for optimizer, times in zip(optimizers, seconds, strict=True):
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def report(fused: Run, eager: Run, fused_step: float, eager_step: float) -> str:
    """Put the two estimates side by side, as an aligned table."""
    digits = max(decimals(fused.summary.sem), decimals(eager.summary.sem))
    rows: list[tuple[str, Callable[[Run], str], str]] = [
        ("LLC", lambda r: f"{r.summary.llc:.{digits}f} +- {r.summary.sem:.{digits}f}", ""),
        ("between chains", lambda r: f"{r.summary.std:.{digits}f}", ""),
        ("R-hat", lambda r: f"{r.summary.rhat:.3f}", ""),
        ("ESS bulk", lambda r: f"{r.summary.ess_bulk:.0f}", ""),
        (
            "steps / s",
            lambda r: f"{r.steps_per_second:,.0f}",
            f"{fused.steps_per_second / eager.steps_per_second:.2f}x",
        ),
    ]
    lines = [f"{'':<18}{'fastllc':>16}{'pure PyTorch':>16}{'ratio':>10}"]
    lines += [f"{name:<18}{f(fused):>16}{f(eager):>16}{ratio:>10}" for name, f, ratio in rows]
    lines.append(
        f"{'step alone (us)':<18}{fused_step * 1e6:>16.1f}{eager_step * 1e6:>16.1f}"
        f"{f'{eager_step / fused_step:.2f}x':>10}"
    )
    apart = abs(fused.summary.llc - eager.summary.llc)
    combined = float(np.hypot(fused.summary.sem, eager.summary.sem))
    lines += [
        "",
        f"difference of the LLCs: {apart:.{digits}f} = {apart / combined:.1f} combined errors",
    ]
    return "\n".join(lines)


@torch.no_grad()
def _score(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    outputs = model(data[0])
    correct = (outputs.argmax(dim=1) == data[1]).float().mean()
    return nn.functional.cross_entropy(outputs, data[1]).item(), correct.item()


def _describe(model: nn.Module) -> str:
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    widths = [layers[0].in_features] + [layer.out_features for layer in layers]
    count = sum(p.numel() for p in model.parameters())
    return f"MLP {'-'.join(map(str, widths))}, {count:,} weights"
