"""Bayesian linear regression: exact draws, and losses whose moments have closed forms."""

import math

import numpy as np

from fastllc import default_nbeta

N, D, GAMMA = 50, 3, 2.0
NBETA = default_nbeta(N)
BETA = NBETA / N


class Regression:
    """y_i ~ N(x_i w, 1); posterior exp(-beta sum_i l_i - gamma/2 |w|^2), which is Gaussian."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(N, D))
        self.y = self.x @ [1.0, -2.0, 0.5] + rng.normal(size=N)
        precision = BETA * self.x.T @ self.x + GAMMA * np.eye(D)
        self.covariance = np.linalg.inv(precision)
        self.mean = self.covariance @ (BETA * self.x.T @ self.y)

    def losses(self, rng, shape):
        w = rng.multivariate_normal(self.mean, self.covariance, size=shape)
        return (self.y - w @ self.x.T) ** 2 / 2 + math.log(2 * math.pi) / 2

    def residuals(self):
        """Mean and covariance of y - x w."""
        return self.y - self.x @ self.mean, self.x @ self.covariance @ self.x.T

    def covariance_of_losses(self):
        """Of mu + z with z Gaussian: Cov[(mu_i + z_i)^2, (mu_j + z_j)^2] / 4."""
        mu, s = self.residuals()
        return s**2 / 2 + np.outer(mu, mu) * s

    def exact(self):
        """A residual is N(mu, s^2), so E e^-l is N(0, 1 + s^2) there; Var l = s^4/2 + mu^2 s^2."""
        mu, s = self.residuals()
        s2 = np.diag(s)
        training_loss = np.mean(mu**2 / (1 + s2) + np.log(2 * np.pi * (1 + s2))) / 2
        variance = np.sum(s2**2 / 2 + mu**2 * s2)
        return {
            "training_loss": training_loss,
            "functional_variance": variance,
            "singular_fluctuation": BETA * variance / 2,
            "waic": training_loss + BETA * variance / N,
        }
