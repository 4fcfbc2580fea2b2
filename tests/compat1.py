"""A problem, callbacks and filters for the tests of `fastllc.compat.devinterp1`."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastllc.compat.devinterp1.slt.callback import SamplerCallback
from fastllc.compat.devinterp1.slt.gradient import GradientDistribution
from fastllc.compat.devinterp1.slt.llc import LLCEstimator, OnlineLLCEstimator
from fastllc.compat.devinterp1.slt.loss import OnlineLossStatistics
from fastllc.compat.devinterp1.slt.mala import MalaAcceptanceRate
from fastllc.compat.devinterp1.slt.norms import GradientNorm, NoiseNorm, WeightNorm
from fastllc.compat.devinterp1.slt.trace import OnlineTraceStatistics
from fastllc.compat.devinterp1.slt.wbic import OnlineWBICEstimator

QUIET = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:SGLD has been deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:SGNHT has been deprecated:DeprecationWarning"),
]
TALKATIVE = [
    pytest.mark.filterwarnings("ignore:You are"),
    pytest.mark.filterwarnings("ignore:If you're setting"),
    pytest.mark.filterwarnings("ignore:Using passed in"),
]

CHAINS, DRAWS = 3, 6
SHORT = {"num_chains": CHAINS, "num_draws": DRAWS, "verbose": False, "seed": 1}
KWARGS = {"lr": 1e-3, "nbeta": 10.0, "localization": 5.0}


def classifier(n=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    y = torch.randint(3, (n,), generator=generator)
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), TensorDataset(x, y)


def loader_of(data, size=20, **settings):
    return DataLoader(data, size, **{"shuffle": True, **settings})


class Seen(SamplerCallback):
    """Takes down everything it is called with; it looks at models in place."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __call__(self, **known):
        model, optimizer = known["model"], known["optimizer"]
        self.calls.append(
            {
                **known,
                "weights": [p.detach().clone() for p in model.parameters()],
                "grads": [p.grad.clone() for p in model.parameters()],
                "same": all(
                    p is q
                    for p, q in zip(
                        model.parameters(), optimizer.param_groups[0]["params"], strict=True
                    )
                ),
            }
        )

    def get_results(self):
        return {"calls": len(self.calls)}


def standard(kwargs=KWARGS, draws=DRAWS, chains=CHAINS):
    """All callbacks that there are, the derived ones after their bases."""
    llc = OnlineLLCEstimator(chains, draws, 0.0, nbeta=kwargs["nbeta"])
    weights = WeightNorm(chains, draws)
    return [
        LLCEstimator(chains, draws, 0.0, nbeta=kwargs["nbeta"]),
        llc,
        OnlineWBICEstimator(chains, draws, n=60),
        OnlineLossStatistics(llc),
        weights,
        OnlineTraceStatistics(weights, "weight_norms"),
        GradientNorm(chains, draws),
        NoiseNorm(chains, draws),
        GradientDistribution(chains, draws, param_names=["2.bias"]),
        MalaAcceptanceRate(chains, draws, kwargs["lr"], nbeta=kwargs["nbeta"]),
    ]


class Plain(SamplerCallback):
    """Nothing but user-written: it keeps chains from being stacked, and can be pickled."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def __call__(self, **known):
        pass

    def get_results(self):
        return {}
