"""Models at minima whose local learning coefficients are known, to test estimators against."""

from fastllc.oracles.deep_linear import DeepLinear, deep_linear, reduced_rank
from fastllc.oracles.formulas import deep_linear_coefficient, reduced_rank_coefficient
from fastllc.oracles.oracle import Coefficient, Oracle

__all__ = [
    "Coefficient",
    "DeepLinear",
    "Oracle",
    "deep_linear",
    "deep_linear_coefficient",
    "reduced_rank",
    "reduced_rank_coefficient",
]
