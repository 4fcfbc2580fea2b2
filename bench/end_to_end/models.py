"""Models that torch has not, and how they are trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastllc.bench.problem import Loss

__all__ = ["NormalCrossing", "Superposition", "Transformer", "descend", "token_loss"]


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
        return torch.add(h, self.mlp(self.norm2(h)))


class Transformer(nn.Module):
    """A language model of two layers."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions.weight[: x.shape[-1]]
        logits: Tensor = self.unembed(self.norm(self.blocks(h)))
        return logits


def token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy, averaged over all tokens."""
    return F.cross_entropy(logits.flatten(0, -2), tokens.flatten())


def descend(
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
    optimizer.zero_grad()
