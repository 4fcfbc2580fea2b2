"""Exact laws of the discretised chains, all settings of a grid in one vectorised run."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from fastllc import BAOAB, llc, sample
from zoo import Point

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = torch.zeros(4, 1), torch.zeros(4)
QUIET = {"seed": 0, "progress": False, "engine": "vectorised", "init_loss": 0.0}
SIGMAS = 4


def check(trace, scale, exact, precision):
    """The estimate of each cell, scale * mean loss, within its standard error, which is small."""
    draws = trace["steps/loss"].values[..., int(trace.attrs["num_burnin_steps"]) :]
    chains = scale * draws.mean(-1, dtype=np.float64)
    estimate = chains.mean(-1)
    error = chains.std(-1, ddof=1) / math.sqrt(chains.shape[-1])
    assert (error < precision * exact).all()
    assert (abs(estimate - exact) < SIGMAS * error).all()
    return estimate, error


def test_quadratics_with_step_size_bias_at_every_setting():
    """lambda = 1/2 sum nb h / (a (1 - eps a / 4)), a = nb h + gamma, for SGLD over all data."""
    h = torch.tensor([1.0, 0.5, 0.1, 0.02]).repeat(50)
    lrs, nbetas, gammas = [0.005, 0.01, 0.02], [20.0, 100.0], [2.0, 20.0]
    trace = sample(
        Point(torch.zeros(200)),
        DATA,
        evaluate=lambda m, _: 0.5 * (h * m.w**2).sum(),
        lr=lrs,
        nbeta=nbetas,
        localization=gammas,
        num_chains=16,
        num_burnin_steps=1000,
        num_draws=1000,
        **QUIET,
    )
    eps, nb, gamma = (trace[name].values[:, None] for name in ("lr", "nbeta", "localization"))
    a = nb * h.numpy() + gamma
    continuous = (0.5 * nb * h.numpy() / a).sum(1)
    exact = (0.5 * nb * h.numpy() / (a * (1 - eps * a / 4))).sum(1)
    estimate, error = check(trace, nb, exact, precision=0.02)
    # The bias is seen where it is large, so that the law of continuous time would be refused.
    biased = exact > 1.2 * continuous
    assert biased.sum() >= 3
    assert (abs(estimate - continuous)[biased] > 8 * error[biased]).all()
    found = llc(trace)
    np.testing.assert_allclose(found.llc, estimate, rtol=1e-5)


def test_checkpoints_have_laws_of_their_own():
    """Curvature in a buffer: lambda / d differs by checkpoint alone."""

    class Bowl(Point):
        def __init__(self, curvature):
            super().__init__(torch.zeros(100))
            self.register_buffer("h", torch.tensor(curvature))

        def forward(self, x):
            return 0.5 * self.h * (self.w**2).sum()

    h = np.array([1.0, 0.3, 0.1])
    nb, gamma, eps = 50.0, 5.0, 0.02
    trace = sample(
        [Bowl(float(value)) for value in h],
        DATA,
        lambda loss, _: loss,
        lr=eps,
        nbeta=nb,
        localization=gamma,
        num_chains=32,
        num_burnin_steps=500,
        num_draws=1000,
        **QUIET,
    )
    a = nb * h + gamma
    check(trace, nb, 50 * nb * h / (a * (1 - eps * a / 4)), precision=0.02)


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared"])
def test_minibatches_heat_as_computed(shared):
    """Loss |w - x|^2 / 2, x = +-1 of variance C, drawn with replacement.

    The variance of a weight is (1 + eps nb^2 C / (4 B)) / (a (1 - eps a / 4)), a = nb + gamma.
    """
    n, d = 4000, 50
    x = torch.randint(0, 2, (n, d), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    nb, gamma, eps = 100.0, 100.0, 1e-3
    sizes = (5, 20)
    for size in sizes:
        start = Point(x.mean(0))
        trace = sample(
            start,
            (x, torch.zeros(n)),
            evaluate=lambda m, b: ((m.w - b[0]) ** 2).sum(1) / 2,
            lr=eps,
            nbeta=nb,
            localization=gamma,
            num_chains=48,
            num_burnin_steps=100,
            num_draws=1000,
            batch_size=size,
            replacement=True,
            shared_batches=shared,
            **QUIET | {"init_loss": "paired"},
        )
        # The variance of a sample's gradient, coordinate by coordinate.
        c = x.var(0, correction=0).double().numpy()
        a = nb + gamma
        cold = 0.5 * nb * d / (a * (1 - eps * a / 4))
        exact = 0.5 * nb * ((1 + eps * nb**2 * c / (4 * size)) / (a * (1 - eps * a / 4))).sum()
        paired = (trace["steps/loss"] - trace["steps/baseline"]).values[:, 100:].astype(float)
        # Chains that share minibatches are not independent: blocks of their mean are.
        blocks = nb * (paired.mean(0).reshape(40, -1) if shared else paired).mean(1)
        error = blocks.std(ddof=1) / math.sqrt(len(blocks))
        assert error < 0.03 * exact
        assert abs(blocks.mean() - exact) < SIGMAS * error
        if not shared:
            assert abs(blocks.mean() - cold) > 8 * error


def test_the_quartic_obeys_the_virial_theorem_at_every_temperature():
    """nbeta E[sum w^4] = d / 4 at any nbeta, gamma = 0; BAOAB's bias is of higher order."""
    d, nbetas = 200, [10.0, 100.0, 1000.0]
    traces = [
        sample(
            Point(torch.zeros(d)),
            DATA,
            evaluate=lambda m, _: (m.w**4).sum(),
            sampler=BAOAB,
            lr=0.01 / math.sqrt(nb),
            nbeta=[nb],
            localization=0.0,
            num_chains=32,
            num_burnin_steps=1000,
            num_draws=1500,
            **QUIET,
        )
        for nb in nbetas
    ]
    for nb, trace in zip(nbetas, traces, strict=True):
        check(trace, nb, np.array([d / 4]), precision=0.01)


SCRIPT = """
import json, resource
import torch
from torch import nn
from torch.nn.functional import mse_loss
from fastllc import sample

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
x = torch.randn(1000, 8)
data = x, model(x).detach()
settings = {"lr": 1e-3, "nbeta": 100.0, "localization": 1.0, "batch_size": 200, "seed": 0}
settings["progress"] = False
sample(model, data, mse_loss, num_chains=10, num_draws=2, **settings)
before = peak()
trace = sample(model, data, mse_loss, num_chains=1000, num_draws=20, **settings)
losses = trace["steps/loss"].values
print(json.dumps({
    "grown": (peak() - before) * 1024,
    "engine": trace.attrs["engine"],
    "chunk": trace.attrs["chunk_size"],
    "shape": losses.shape,
    "finite": bool((losses >= 0).all()),
    "distinct": len(set(losses[:, -1].tolist())),
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units")
def test_a_thousand_chains_of_a_linear_net_in_one_call(run_python):
    """An 8-8-8-8 net of 192 weights: memory is that of minibatches and activations."""
    done = run_python(SCRIPT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["engine"], found["chunk"]) == ("vectorised", 1000)
    assert found["shape"] == [1000, 20]
    assert found["finite"]
    assert found["distinct"] == 1000
    # A chain holds the order of its epoch twice (1000 samples), two minibatches, each of inputs and
    # targets, 4 activations and their gradients, of 200 x 8 numbers, and 4 times its weights.
    chain = 2 * 1000 * 8 + (4 + 4 + 4) * 200 * 8 * 4 + 4 * 192 * 4
    assert found["grown"] < 1.5 * 1000 * chain  # the allocator's slack
