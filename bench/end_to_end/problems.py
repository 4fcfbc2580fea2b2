"""What is estimated: six models at a minimum of their loss, with data and settings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from bench.end_to_end.models import NormalCrossing, Superposition, Transformer, descend, token_loss
from fastllc.bench.problem import LINEAR, Problem, seeded

__all__ = ["PROBLEMS", "Problem"]


def normal_crossing() -> Problem:
    """Put the crossing at the origin; the targets are noise."""
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


def mlp() -> Problem:
    """Train an MLP on ten classes of blurred 28 x 28 prototypes under noise."""
    samples = 20 * 512
    prototypes = F.interpolate(torch.rand(10, 1, 7, 7), (28, 28), mode="bilinear").flatten(1)
    y = torch.randint(10, (samples,))
    x = (prototypes[y] + 0.5 * torch.randn(samples, 784)).clamp(0, 1)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    descend(model, x, y, F.cross_entropy, 512, steps=200, lr=1e-3)
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
    """Train on six features, one at a time, in two dimensions."""
    samples = 1024
    x = F.one_hot(torch.randint(6, (samples,)), 6) * torch.rand(samples, 1)
    model = Superposition(6, 2)
    descend(model, x, x, F.mse_loss, samples, steps=3000, lr=1e-2)
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
    """Train a transformer on sequences of a random Markov chain of order 1."""
    vocabulary, context, samples = 1024, 64, 1024
    logits = 3 * torch.randn(vocabulary, vocabulary)
    tokens = [torch.randint(vocabulary, (samples, 1))]
    for _ in range(context):
        tokens.append(torch.multinomial(logits[tokens[-1][:, 0]].softmax(-1), 1))
    text = torch.cat(tokens, dim=1)
    x, y = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    model = Transformer(vocabulary, context, width=256, heads=4)
    descend(model, x, y, token_loss, 16, steps=300, lr=1e-3)
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


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "normal-crossing": seeded(normal_crossing),
    **LINEAR,
    "mlp": seeded(mlp),
    "superposition": seeded(superposition),
    "transformer": seeded(transformer),
}
