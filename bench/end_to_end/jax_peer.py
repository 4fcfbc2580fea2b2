"""The same SGLD in JAX: chains by vmap, steps by scan, all of it one compiled function."""

from __future__ import annotations

import math
from itertools import islice
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from torch import nn
from torch.nn import functional as F

from bench.end_to_end.runs import FloatArray, Run, shuffled, timed
from fastllc.bench.problem import Problem

__all__ = ["run"]

Params = list[list[jax.Array]]  # [[weight], ...] or [[weight, bias], ...]


def run(problem: Problem, steps: int, seed: int) -> Run:
    """Estimate by one compiled call, compiled anew each time; the order is drawn beforehand."""
    layers = [layer for layer in problem.model.children() if isinstance(layer, nn.Linear)]
    w0 = [[jnp.asarray(p.detach().numpy()) for p in layer.parameters()] for layer in layers]
    data = jnp.asarray(problem.x.numpy()), jnp.asarray(problem.y.numpy())
    order = jax.ShapeDtypeStruct((steps, problem.chains, problem.batch_size), jnp.int32)
    start = perf_counter()
    walk = jax.jit(_walk(problem)).lower(w0, *data, order, jax.random.key(seed)).compile()
    compile_seconds = perf_counter() - start

    def estimate() -> FloatArray:
        order = np.stack(list(islice(shuffled(problem, seed), steps)))
        losses = walk(w0, *data, order, jax.random.key(seed))
        return problem.llc(np.asarray(losses)[steps // 2 :].T)

    return timed(estimate, compile_seconds)


def _walk(problem: Problem) -> Any:
    """Return the function from weights, data, order and key to the losses, [steps, chains]."""
    lr, nbeta, localization = problem.lr, problem.nbeta, problem.localization
    loss = _loss(problem)

    def walk(w0: Params, x: jax.Array, y: jax.Array, order: jax.Array, key: jax.Array) -> jax.Array:
        def move(w: jax.Array, grad: jax.Array, anchor: jax.Array, key: jax.Array) -> jax.Array:
            drift = nbeta * grad + localization * (w - anchor)
            return w - lr / 2 * drift + math.sqrt(lr) * jax.random.normal(key, w.shape)

        def chain(w: Params, batch: jax.Array, key: jax.Array) -> tuple[Params, jax.Array]:
            value, grads = jax.value_and_grad(loss)(w, x[batch], y[batch])
            leaves, tree = jax.tree.flatten(w)
            keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))
            return jax.tree.map(move, w, grads, w0, keys), value

        def step(carry: tuple[Params, jax.Array], batch: jax.Array) -> Any:
            w, key = carry
            key, now = jax.random.split(key)
            w, values = jax.vmap(chain)(w, batch, jax.random.split(now, problem.chains))
            return (w, key), values

        start = jax.tree.map(lambda p: jnp.tile(p, (problem.chains, *[1] * p.ndim)), w0)
        return jax.lax.scan(step, (start, key), order)[1]

    return walk


def _loss(problem: Problem) -> Any:
    """Return the loss of a stack of linear layers, with ReLUs between them if it has any."""
    rectified = any(isinstance(layer, nn.ReLU) for layer in problem.model.children())

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        for index, (weight, *bias) in enumerate(params):
            x = x @ weight.T + (bias[0] if bias else 0)
            if rectified and index + 1 < len(params):
                x = jax.nn.relu(x)
        if problem.loss is F.cross_entropy:
            return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1).mean()
        return ((x - y) ** 2).mean()

    return loss
