"""Models at minima whose local learning coefficients are known, to test estimators against."""

from fastllc.oracles.deep_linear import DeepLinear, deep_linear, reduced_rank
from fastllc.oracles.formulas import deep_linear_coefficient, reduced_rank_coefficient
from fastllc.oracles.homogeneous import quasi_homogeneous, separable
from fastllc.oracles.normal_crossing import normal_crossing
from fastllc.oracles.oracle import Coefficient, Oracle
from fastllc.oracles.orbits import rescaling, ring
from fastllc.oracles.parametrisations import polynomial_pair
from fastllc.oracles.published import CLASSES, PublishedClass, draw_class, truncated_linear
from fastllc.oracles.quadratic import Quadratic, quadratic

__all__ = [
    "CLASSES",
    "Coefficient",
    "DeepLinear",
    "Oracle",
    "PublishedClass",
    "Quadratic",
    "deep_linear",
    "deep_linear_coefficient",
    "draw_class",
    "normal_crossing",
    "polynomial_pair",
    "quadratic",
    "quasi_homogeneous",
    "reduced_rank",
    "reduced_rank_coefficient",
    "rescaling",
    "ring",
    "separable",
    "truncated_linear",
]
