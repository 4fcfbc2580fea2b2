"""What is estimated: six models at a minimum of their loss, with data and settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PROBLEMS", "Problem"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Problem:
    """A model at its minimum and everything an estimate is told.

    All run the same steps of SGLD and judge the second half of them. `nbeta` is n / log n and
    `init_loss` the loss over all data, both computed here.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    loss: Loss
    batch_size: int
    chains: int
    lr: float
    localization: float
    steps: int  # a chain
    devinterp_steps: int  # its cost is linear in them, which is shown too
    nbeta: float = field(init=False)
    init_loss: float = field(init=False)

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(True)
        self.nbeta = len(self.x) / math.log(len(self.x))
        with torch.no_grad():
            pieces = zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
            losses = [self.loss(self.model(x), y).item() for x, y in pieces]
        self.init_loss = sum(losses) / len(losses)  # all pieces have one size

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.model.parameters())

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.parameters:,} weights, batch {self.batch_size:,} of "
            f"{len(self.x):,}, lr {self.lr:g}, nbeta {self.nbeta:.4g}, "
            f"localization {self.localization:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("model", "x", "y", "loss"):
            del settings[name]
        return {**settings, "parameters": self.parameters, "num_samples": len(self.x)}

    def llc(self, losses: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Estimate the LLC of each chain from its losses, [chains, draws]."""
        return self.nbeta * (losses.mean(axis=1, dtype=np.float64) - self.init_loss)


class NormalCrossing(nn.Module):
    """f(x) = w1 w2 x: at the origin the LLC is 1/2, with multiplicity 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.prod() * x


class Superposition(nn.Module):
    """ReLU(W^T W x + b): m features in n dimensions (Elhage et al. 2022)."""

    def __init__(self, features: int, dimensions: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(dimensions, features) / math.sqrt(dimensions))
        self.b = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.W.T @ self.W + self.b)


class Block(nn.Module):
    """Causal attention and an MLP, each after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for t in self.qkv(self.norm1(h)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(attended.transpose(-3, -2).flatten(-2))
        return h + self.mlp(self.norm2(h))


class Transformer(nn.Module):
    """A language model of two layers."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions.weight[: x.shape[-1]]
        return self.unembed(self.norm(self.blocks(h)))


def token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy, averaged over all tokens."""
    return F.cross_entropy(logits.flatten(0, -2), tokens.flatten())


def normal_crossing() -> Problem:
    x = torch.randn(1000, 1) * 2
    return Problem(
        "2-parameter normal crossing",
        NormalCrossing(),
        x,
        torch.randn(1000, 1),
        F.mse_loss,
        batch_size=1000,
        chains=10,
        lr=1e-3,
        localization=1.0,
        steps=2000,
        devinterp_steps=200,
    )


def linear_net(width: int, samples: int, batch_size: int, devinterp_steps: int) -> Problem:
    """A deep linear network at the teacher's weights; the teacher's outputs have noise."""
    layers = [nn.Linear(width, width, bias=False) for _ in range(3)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=1 / math.sqrt(width))
    model = nn.Sequential(*layers)
    x = torch.randn(samples, width)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(samples, width)
    return Problem(
        f"linear {width}-{width}-{width}-{width}",
        model,
        x,
        y,
        F.mse_loss,
        batch_size=batch_size,
        chains=10,
        lr=1e-4,
        localization=1.0,
        steps=2000,
        devinterp_steps=devinterp_steps,
    )


def mlp() -> Problem:
    """An MLP on ten classes of blurred 28 x 28 prototypes under noise."""
    samples = 20 * 512
    prototypes = F.interpolate(torch.rand(10, 1, 7, 7), (28, 28), mode="bilinear").flatten(1)
    y = torch.randint(10, (samples,))
    x = (prototypes[y] + 0.5 * torch.randn(samples, 784)).clamp(0, 1)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    _train(model, x, y, F.cross_entropy, 512, steps=200, lr=1e-3)
    return Problem(
        "MLP 784-128-10",
        model,
        x,
        y,
        F.cross_entropy,
        batch_size=512,
        chains=10,
        lr=1e-5,
        localization=100.0,
        steps=2000,
        devinterp_steps=100,
    )


def superposition() -> Problem:
    """Six features, one at a time, in two dimensions."""
    samples = 1024
    x = F.one_hot(torch.randint(6, (samples,)), 6) * torch.rand(samples, 1)
    model = Superposition(6, 2)
    _train(model, x, x, F.mse_loss, samples, steps=3000, lr=1e-2)
    return Problem(
        "toy model of superposition, m=6, n=2",
        model,
        x,
        x,
        F.mse_loss,
        batch_size=256,
        chains=100,
        lr=1e-3,
        localization=1.0,
        steps=2000,
        devinterp_steps=40,
    )


def transformer() -> Problem:
    """A transformer on sequences of a random Markov chain of order 1."""
    vocabulary, context, samples = 1024, 64, 1024
    logits = 3 * torch.randn(vocabulary, vocabulary)
    tokens = [torch.randint(vocabulary, (samples, 1))]
    for _ in range(context):
        tokens.append(torch.multinomial(logits[tokens[-1][:, 0]].softmax(-1), 1))
    text = torch.cat(tokens, dim=1)
    x, y = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    model = Transformer(vocabulary, context, width=256, heads=4)
    _train(model, x, y, token_loss, 16, steps=300, lr=1e-3)
    return Problem(
        "transformer, 2 layers",
        model,
        x,
        y,
        token_loss,
        batch_size=16,
        chains=4,
        lr=1e-6,
        localization=100.0,
        steps=20,
        devinterp_steps=20,
    )


def _train(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, batch_size: int, steps: int, lr: float
) -> None:
    """Descend with Adam, its rate falling to zero, on batches drawn with replacement."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        batch = torch.randint(len(x), (batch_size,))
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(x[batch]), y[batch]))
        optimizer.step()
        schedule.step()


def _seeded(make: Callable[[], Problem]) -> Callable[[], Problem]:
    def seeded() -> Problem:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make()

    return seeded


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "normal-crossing": _seeded(normal_crossing),
    "linear-8": _seeded(lambda: linear_net(8, 1000, 200, devinterp_steps=200)),
    "linear-50": _seeded(lambda: linear_net(50, 5000, 500, devinterp_steps=100)),
    "mlp": _seeded(mlp),
    "superposition": _seeded(superposition),
    "transformer": _seeded(transformer),
}
