"""Runs to be killed: what a child process does, and this one without a store."""

import functools
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastllc
from fastllc import MALA, SGHMC, SGNHT, DivergenceWarning, Observable, RMSpropSGLD
from fastllc.engine import loop, store

__all__ = ["CASES", "in_child", "opened", "position", "sample", "squares"]


class Noisy(nn.Module):
    """Dropout, batch normalisation, and a buffer that no state dict has."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(8, 2)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.scale += 0.01
        return self.last(self.drop(self.norm(self.first(x)))) * self.scale


def linear():
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False))


def squares(outputs, targets):
    return ((outputs - targets) ** 2).mean(1)


def moved(model):
    return {name: w + 0.1 for name, w in model.state_dict().items()}


def _vectorised(model, data):
    return {
        "checkpoints": {"first": model.state_dict(), "the last": moved(model)},
        "lr": [50.0, 1e-3],  # the first diverges
        "num_chains": 2,
        "save_metrics": True,
        "observables": {"probe": Observable(data, num_samples=5, every=3), "all": data},
    }


# Of model and data: what a case samples.
CASES = {
    "vectorised": (linear, _vectorised),
    "thermostat": (linear, lambda m, d: {"sampler": SGNHT, "num_burnin_steps": 3}),
    "momenta in place": (linear, lambda m, d: {"sampler": SGHMC, "engine": "inplace"}),
    "squares": (
        linear,
        lambda m, d: {"sampler": functools.partial(RMSpropSGLD, alpha=0.9), "replacement": True},
    ),
    "train mode": (
        Noisy,
        lambda m, d: {"num_chains": 2, "observables": {"probe": d}},
    ),
    "boxes": (linear, lambda m, d: {"lr": [1e-4, 1e-3], "num_chains": 3, "chunk_size": 2}),
    "metropolis": (
        linear,
        lambda m, d: {"sampler": MALA, "lr": 0.008, "batch_size": 50, "save_acceptance": True},
    ),
    "metropolis in place": (
        linear,
        lambda m, d: {"sampler": MALA, "lr": 0.008, "batch_size": 50, "engine": "inplace"},
    ),
    "loader": (
        linear,
        lambda m, d: {
            "data": DataLoader(TensorDataset(*d), 10, shuffle=True),
            "batch_size": None,
            "accumulation": 2,
            "observables": {"probe": d},
        },
    ),
}


def sample(case, **more):
    make, settings_of = CASES[case]
    torch.manual_seed(0)
    model, x = make(), torch.randn(50, 4)
    data = x, torch.randn(50, 2)
    settings = {
        "data": data,
        "loss_fn": squares,
        "lr": 1e-3,
        "num_chains": 4,
        "num_draws": 12,
        "num_steps_bw_draws": 2,
        "batch_size": 10,
        "seed": 5,
        "progress": False,
    }
    settings |= settings_of(model, data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Dropout|BatchNorm1d is in training mode")
        warnings.simplefilter("ignore", DivergenceWarning)
        return fastllc.sample(model, **settings | more)


def in_child(case, path, die_at=None, **more):
    """Sample into a store, saving at every step; die at the so-manieth file that is made there."""
    torch.set_num_threads(1)
    store._MIN_SECONDS = loop._TICK_SECONDS = 0.0
    store._MAX_SHARE = 1e9
    count = 0

    def hook(event, arguments):
        nonlocal count
        names = event in ("open", "os.mkdir", "os.rename") and isinstance(
            arguments[0], (str, os.PathLike)
        )
        if names and Path(arguments[0]).is_relative_to(path):
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if die_at is not None:
        sys.addaudithook(hook)
    sample(case, store=path, **more)


def position(path):
    """How far a store has come: (box, step)."""
    found = torch.load(Path(path) / "position.pt", weights_only=True)
    return found["box"], found["step"]


def opened(path):
    """A store as any reader of Zarr sees it."""
    with xr.open_datatree(path, engine="zarr") as tree:
        return tree.load()
