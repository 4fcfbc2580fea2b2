"""Whole runs on a GPU: near the CPU's, the same at every time, steps that do not wait, graphs."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fastllc import SGLD, DivergenceWarning, Sampling
from fastllc.engine import inplace
from fastllc.engine.record import Record, Series
from fastllc.engine.vectorised import VectorisedWalkers
from fastllc.engine.watch import Watch
from gpu import DEVICE, NEEDS_GPU
from helpers import OWN, SAMPLERS

pytestmark = NEEDS_GPU

SETTINGS = {
    "lr": 1e-3,
    "nbeta": 10.0,
    "localization": 5.0,
    "num_chains": 3,
    "num_draws": 150,
    "batch_size": 16,
    "seed": 1,
    "progress": False,
}
ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
# What is done at each step.
STEPS = {
    VectorisedWalkers: ("gradient", "move", "alive", "metrics"),
    inplace.InPlaceWalkers: ("gradient", "move", "alive", "metrics"),
    Record: ("append",),
    Watch: ("see", "count"),
}


def problem(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    x, y = torch.randn(64, 8), torch.randint(3, (64,))
    return model.to(device), (x.to(device), y.to(device)), cross_entropy


def run(device=DEVICE, **settings):
    return Sampling(**{**SETTINGS, **settings}).run(*problem(device))


@contextlib.contextmanager
def mode(name):
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(name)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture
def no_waiting_in_steps(monkeypatch):
    def under(name, method):
        def call(*args, **kwargs):
            with mode(name):
                return method(*args, **kwargs)

        return call

    for kind, names in STEPS.items():
        for name in names:
            monkeypatch.setattr(kind, name, under("error", getattr(kind, name)))
    for kind, name in [(Series, "flush"), (Watch, "_tell")]:
        monkeypatch.setattr(kind, name, under("default", getattr(kind, name)))


@ENGINES
@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.usefixtures("no_waiting_in_steps")
def test_runs_are_near_those_of_the_cpu(engine, kind):
    def make(params, **settings):
        return kind(params, **settings, **OWN[kind])

    settings = {"engine": engine, "sampler": make, "save_metrics": True, "num_draws": 20}
    found, wanted = run(**settings), run("cpu", **settings)
    assert found.attrs["engine"] == engine
    for path in ("steps/loss", "steps/baseline", "metrics/distance", "metrics/noise"):
        ours, theirs = found[path].values, wanted[path].values
        # Gradients differ by rounding, which grows along a chain.
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@ENGINES
def test_runs_have_the_same_bits_at_every_time(engine):
    first, second = run(engine=engine), run(engine=engine)
    assert (first["steps/loss"].values == second["steps/loss"].values).all()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_recorded_gradients(accumulation):
    settings = {"engine": "vectorised", "accumulation": accumulation, "num_draws": 40}
    plain, captured = run(**settings), run(**settings, capture=True)
    np.testing.assert_allclose(
        captured["steps/loss"].values, plain["steps/loss"].values, rtol=1e-3, atol=1e-4
    )
    assert captured.attrs["capture"]


def test_a_loss_that_waits_cannot_be_recorded():
    script = """
import torch
from torch.nn.functional import cross_entropy
from fastllc import Sampling

def loss_fn(outputs, targets):
    torch.cuda.current_stream().synchronize()
    return cross_entropy(outputs, targets)

model = torch.nn.Linear(8, 3).cuda()
data = torch.randn(64, 8).cuda(), torch.randint(3, (64,)).cuda()
Sampling(engine="vectorised", capture=True, progress=False).run(model, data, loss_fn)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "ValueError: capture must be False for this model" in done.stderr


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))


@ENGINES
def test_lost_chains(engine):
    def evaluate(model, batch):
        inside = (model.w < 0.62).all()
        return (model.w**2).sum() * torch.where(inside, 1.0, torch.nan)

    settings = {
        **SETTINGS,
        "engine": engine,
        "sampler": SGLD,
        "batch_size": 4,
        "lr": 0.02,
        "localization": 1.0,
        "num_chains": 8,
        "num_draws": 110,
        "init_loss": 0.0,
        "save_metrics": True,
    }
    traces = []
    for device in (DEVICE, "cpu"):
        data = torch.zeros(4, 1, device=device), torch.zeros(4, device=device)
        with pytest.warns(DivergenceWarning, match="chains diverged"):
            found = Sampling(**settings).run(Point().to(device), data, evaluate=evaluate)
        traces.append(found)
    ours, theirs = traces
    assert (ours["diverged_at"].values == theirs["diverged_at"].values).all()
    for path in ("steps/loss", "metrics/distance"):
        assert (ours[path].isnull().values == theirs[path].isnull().values).all()
        np.testing.assert_allclose(ours[path].values, theirs[path].values, rtol=1e-4, atol=1e-6)
