"""The only door to native code: tensors are checked here and packed into its tables."""

from fastllc.kernels.chains import UNSTOPPABLE, Chains
from fastllc.kernels.checked import Checked
from fastllc.kernels.device import DeviceSegments
from fastllc.kernels.functions import (
    has_kernel,
    localization_penalty,
    on_device,
    standard_normal,
    use_reference,
)
from fastllc.kernels.minibatches import Rows, has_rows, order_samples
from fastllc.kernels.segments import Segments
from fastllc.kernels.streams import Fetched, send
from fastllc.kernels.tables import (
    MAX_PARAMS,
    MAX_SKETCH,
    MAX_STEP,
    Member,
    Setting,
    Sketch,
    StepSums,
    real_dtype,
)

__all__ = [
    "MAX_PARAMS",
    "MAX_SKETCH",
    "MAX_STEP",
    "UNSTOPPABLE",
    "Chains",
    "Checked",
    "DeviceSegments",
    "Fetched",
    "Member",
    "Rows",
    "Segments",
    "Setting",
    "Sketch",
    "StepSums",
    "has_kernel",
    "has_rows",
    "localization_penalty",
    "on_device",
    "order_samples",
    "real_dtype",
    "send",
    "standard_normal",
    "use_reference",
]
