"""Models of every kind that the two engines must agree on."""

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, Dataset

N = 24


class Case(NamedTuple):
    """A model at the end of its training, data, and a loss."""

    model: nn.Module
    data: object
    loss_fn: object = None
    evaluate: object = None

    @property
    def fit(self):
        return {
            "model": self.model,
            "data": self.data,
            "loss_fn": self.loss_fn,
            "evaluate": self.evaluate,
        }


def normal(*shape, dtype=torch.float32, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tokens(*shape, high=7, seed=2):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


class Point(nn.Module):
    """Weights and nothing else; the loss is whatever `evaluate` makes of them."""

    def __init__(self, start):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(start, dtype=torch.float32))

    def forward(self, x):
        return self.w.expand(len(x), -1)


class Scaled(nn.Module):
    """A scalar parameter, one that the loss never sees, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.idle = nn.Parameter(torch.ones(3))
        self.fixed = nn.Parameter(torch.tensor([1.0, -1.0]), requires_grad=False)
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.scale * self.layer(x) + self.fixed


class Tied(nn.Module):
    """Embedding and readout share their matrix."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.mix = nn.Linear(6, 6)
        self.readout = nn.Linear(6, 7, bias=False)
        self.readout.weight = self.embed.weight

    def forward(self, x):
        return self.readout(self.mix(self.embed(x)).tanh())


class Attention(nn.Module):
    """A language model: embedding and a causal encoder layer; gives what HuggingFace gives."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.readout = nn.Linear(8, 7)
        self.register_buffer("future", torch.triu(torch.ones(5, 5, dtype=torch.bool), 1))

    def forward(self, x):
        return SimpleNamespace(logits=self.readout(self.block(self.embed(x), self.future)))


class Returns(nn.Module):
    """Wraps a model's output, as users do."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind

    def forward(self, x):
        logits = self.layer(x)
        return {"logits": logits, "hidden": x} if self.kind == "dict" else (logits, x)


class Rows(Dataset):
    """Samples as dictionaries."""

    def __init__(self, n=N):
        self.x, self.y = normal(n, 3), tokens(n, high=2)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"inputs": self.x[i], "labels": self.y[i], "text": "row"}


def language_loss(logits, targets):
    return cross_entropy(logits.flatten(0, -2), targets.flatten())


def on_rows(model, batch):
    return cross_entropy(model(batch["inputs"])["logits"], batch["labels"])


def _linear(**how):
    dtype = how.get("dtype", torch.float32)
    return Case(nn.Linear(3, 2, **how), (normal(N, 3, dtype=dtype), normal(N, 2, dtype=dtype)))


def _mlp(dtype=torch.float32):
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).to(dtype)
    return Case(model, (normal(N, 3, dtype=dtype), tokens(N, high=2)), cross_entropy)


def _conv():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    )
    model(normal(N, 2, 5, 5))  # running statistics other than the first
    model[0].to(memory_format=torch.channels_last)
    return Case(model, (normal(N, 2, 5, 5), tokens(N, high=2)), cross_entropy)


def _normed():
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 6)),
        nn.LayerNorm(6),
        nn.GELU(),
        nn.Linear(6, 2),
    )
    return Case(model, (normal(N, 3), tokens(N, high=2)), cross_entropy)


CASES = {
    "linear": lambda: _linear()._replace(loss_fn=mse_loss),
    "bias-free": lambda: _linear(bias=False)._replace(loss_fn=mse_loss),
    "float64": lambda: _linear(dtype=torch.float64)._replace(loss_fn=mse_loss),
    "bfloat16": lambda: _mlp(torch.bfloat16),
    "mlp": _mlp,
    "per-sample": lambda: _mlp()._replace(loss_fn=nn.CrossEntropyLoss(reduction="none")),
    "conv": _conv,
    "normed": _normed,
    "scaled": lambda: Case(Scaled(), (normal(N, 3), normal(N, 2)), mse_loss),
    "tied": lambda: Case(Tied(), (tokens(N, 5), tokens(N, 5, seed=3)), language_loss),
    "attention": lambda: Case(Attention(), (tokens(N, 5), tokens(N, 5, seed=3)), language_loss),
    "dict": lambda: Case(Returns("dict"), (normal(N, 3), tokens(N, high=2)), cross_entropy),
    "tuple": lambda: Case(
        Returns("tuple"), (normal(N, 3), tokens(N, high=2)), lambda o, t: cross_entropy(o[0], t)
    ),
    "rows": lambda: Case(Returns("dict"), DataLoader(Rows(), 8, shuffle=True), None, on_rows),
}


def case(name, seed=0):
    """Make one of `CASES`, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = CASES[name]()
    found.model.eval()
    return found
