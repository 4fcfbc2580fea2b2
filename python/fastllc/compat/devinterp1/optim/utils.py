"""What samplers tell of a step."""

from typing import Literal

__all__ = ["OptimizerMetric"]

OptimizerMetric = Literal[
    "distance",
    "weight_norm",
    "grad_norm",
    "localization_loss",
    "noise_norm",
    "dw",
    "noise",
    "momentum_norm",
    "thermostat",
]
