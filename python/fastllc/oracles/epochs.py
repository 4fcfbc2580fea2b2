"""The law of linear chains whose minibatches are those of epochs."""

from __future__ import annotations

import numpy as np

from fastllc.oracles.quadrature import Array

__all__ = ["mean_over_epoch", "minibatch_means"]


def minibatch_means(n: int, size: int, *, replacement: bool) -> tuple[float, float, int]:
    """Return variance of a minibatch's mean, covariance of two of an epoch, and how many it has.

    In units of the variance of the n samples; two of them, drawn without replacement, have
    covariance -1 / (n - 1).

    Examples
    --------
    >>> minibatch_means(11, 5, replacement=False)
    (0.12, -0.1, 2)
    """
    if replacement:
        return 1 / size, 0.0, 1
    return (n - size) / (size * (n - 1)), -1 / (n - 1), n // size


def mean_over_epoch(
    pull: Array,
    a: Array,
    eps: Array,
    friction: float,
    variance: Array,
    covariance: Array,
    steps: int,
) -> tuple[Array, Array]:
    r"""Return the stationary means of w^2 and w xi over the steps of an epoch, per weight.

    Of y = (w, m), the step is y' = A y + f xi + g z. Before step j all minibatches that are left
    have the same covariance q_j with y, since any order of them is as likely: q_0 = 0,
    q' = A q + f cov(xi, xi'). So C' = A C A^T + g g^T + var(xi) f f^T + A q f^T + f q^T A^T for the
    covariance C of y, which is the same after an epoch.

    Parameters
    ----------
    pull, a, eps, variance, covariance : ndarray, [d]
        nbeta h; nbeta h + gamma; step size; variance and covariance of minibatches' means.
    friction : float
        That of `SGHMC`.
    steps : int
        Minibatches of an epoch.

    Examples
    --------
    One minibatch an epoch: the AR(1) process of SGLD, 1 / (a (1 - eps a / 4)) without noise.

    >>> one, none = np.ones(1), np.zeros(1)
    >>> w2, w_xi = mean_over_epoch(one, one, one / 10, 1.0, none, none, 1)
    >>> w2.round(6), w_xi
    (array([1.025641]), array([0.]))
    """
    s, decay = eps * a / 2, np.full_like(a, 1 - friction)
    move = np.stack([np.stack([1 - s, decay], -1), np.stack([-s, decay], -1)], -2)
    f = (eps * pull / 2)[:, None, None] * np.ones((1, 2, 1))
    across = f.swapaxes(-1, -2)
    heat = (friction * eps)[:, None, None] + variance[:, None, None] * f * across
    square = np.einsum("dik,djl->dijkl", move, move).reshape(-1, 4, 4)

    def epoch(c: Array) -> tuple[Array, Array, Array]:
        q, w2, w_xi = np.zeros_like(f), np.zeros_like(a), np.zeros_like(a)
        for _ in range(steps):
            w2, w_xi = w2 + c[:, 0, 0], w_xi + q[:, 0, 0]
            moved = move @ q
            owed = moved @ across
            c = move @ c @ move.swapaxes(-1, -2) + heat + owed + owed.swapaxes(-1, -2)
            q = moved + covariance[:, None, None] * f
        return c, w2 / steps, w_xi / steps

    added = epoch(np.zeros_like(move))[0].reshape(-1, 4, 1)
    whole = np.eye(4) - np.linalg.matrix_power(square, steps)
    c = np.linalg.solve(whole, added).reshape(move.shape)
    _, w2, w_xi = epoch(c)
    return w2, w_xi
