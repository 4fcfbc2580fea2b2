"""Fused samplers and local learning coefficients for PyTorch models."""

from fastllc._core import VERSION as __version__
from fastllc.calibration import Calibration, CalibrationError, calibrate
from fastllc.diagnostics import summarize
from fastllc.engine.observables import Observable
from fastllc.engine.sampling import Sampling, default_nbeta, sample
from fastllc.errors import DivergenceError, DivergenceWarning, PrecisionWarning
from fastllc.estimators.coefficient import llc
from fastllc.estimators.covariance import loss_correlation, loss_covariance
from fastllc.estimators.covariances import LossCovarianceEstimator, WeightCovarianceEstimator
from fastllc.estimators.criteria import WAICEstimator, WBICEstimator
from fastllc.estimators.extrapolation import extrapolate_lr
from fastllc.estimators.llc import LLCEstimator
from fastllc.estimators.temperatures import extrapolate_nbeta
from fastllc.estimators.waic import waic
from fastllc.estimators.wbic import free_energy, wbic
from fastllc.info import build_info
from fastllc.kernels import use_reference
from fastllc.mala import mala_acceptance
from fastllc.noise import standard_normal
from fastllc.penalty import localization_penalty, localization_penalty_and_grad
from fastllc.samplers.metrics import Metrics
from fastllc.samplers.metropolis import MALA
from fastllc.samplers.momentum import BAOAB, SGHMC, SGNHT
from fastllc.samplers.preconditioned import AdamSGLD, RMSpropSGLD
from fastllc.samplers.sgld import SGLD
from fastllc.samplers.sketches import Sketches
from fastllc.seeds import chain_key

__all__ = [
    "BAOAB",
    "MALA",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "AdamSGLD",
    "Calibration",
    "CalibrationError",
    "DivergenceError",
    "DivergenceWarning",
    "LLCEstimator",
    "LossCovarianceEstimator",
    "Metrics",
    "Observable",
    "PrecisionWarning",
    "RMSpropSGLD",
    "Sampling",
    "Sketches",
    "WAICEstimator",
    "WBICEstimator",
    "WeightCovarianceEstimator",
    "__version__",
    "build_info",
    "calibrate",
    "chain_key",
    "default_nbeta",
    "extrapolate_lr",
    "extrapolate_nbeta",
    "free_energy",
    "llc",
    "localization_penalty",
    "localization_penalty_and_grad",
    "loss_correlation",
    "loss_covariance",
    "mala_acceptance",
    "sample",
    "standard_normal",
    "summarize",
    "use_reference",
    "waic",
    "wbic",
]
