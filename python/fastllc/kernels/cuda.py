"""The native module for CUDA devices, loaded when a tensor arrives on one."""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from types import ModuleType

import torch

from fastllc import _core

__all__ = ["built", "facts", "load"]

_NAME = "fastllc._cuda"
_BUILD = (
    "install the CUDA toolkit and build fastllc with it: "
    "pip install . --config-settings=cmake.define.FASTLLC_CUDA=ON"
)
_OTHERWISE = "fastllc.use_reference() allows steps in plain PyTorch, which are slow"


def built() -> bool:
    """Whether this installation has kernels for CUDA; loads nothing."""
    return importlib.util.find_spec(_NAME) is not None


@cache
def load(device: torch.device) -> ModuleType:
    """Return the native module, if it can run on a device.

    Raises
    ------
    RuntimeError
        If it is not there, or not for this torch, driver or device; says what to do.
    """
    if torch.version.hip is not None:
        raise _missing("this PyTorch is for AMD devices", "use NVIDIA devices")
    module = _module()
    if (reason := _unfit(module)) is not None:
        raise _missing(*reason)
    found = "{}{}".format(*torch.cuda.get_device_capability(device))
    if int(found) < (least := min(_architectures(module))):
        raise _missing(
            f"they are for compute capability {least / 10} and newer, {device} has "
            f"{int(found) / 10}",
            "build fastllc for it (CMAKE_CUDA_ARCHITECTURES)",
        )
    return module


def facts() -> dict[str, str]:
    """Say what there is for CUDA: the build, the runtime, the driver, architectures, devices.

    Examples
    --------
    >>> list(facts())
    ['cuda_kernels', 'cuda_runtime', 'cuda_driver', 'cuda_architectures', 'cuda_devices']
    """
    runtime = driver = architectures = "unknown"
    try:
        module = _module()
        runtime, driver = _version(module.RUNTIME), _version(module.driver())
        architectures = module.ARCHITECTURES
        reason = _unfit(module)
        state = "built" if reason is None else f"built, but cannot run: {reason[0]}"
    except RuntimeError:
        state = "not built" if not built() else "built, but cannot be loaded"
    devices = [
        "{} ({}.{})".format(torch.cuda.get_device_name(i), *torch.cuda.get_device_capability(i))
        for i in range(torch.cuda.device_count())
    ]
    return {
        "cuda_kernels": state,
        "cuda_runtime": runtime,
        "cuda_driver": driver,
        "cuda_architectures": architectures,
        "cuda_devices": ", ".join(devices) or "none",
    }


def _module() -> ModuleType:
    if not built():
        raise _missing("this installation was built without them", _BUILD)
    try:
        return importlib.import_module(_NAME)
    except ImportError as error:
        raise _missing(f"they cannot be loaded ({error})", _BUILD) from error


def _unfit(module: ModuleType) -> tuple[str, str] | None:
    """Say why the module cannot run here, and what helps."""
    ours = _core.VERSION, _core.NOISE_FORMAT
    if ours != (module.VERSION, module.NOISE_FORMAT):
        return f"they are of version {module.VERSION}, fastllc is {ours[0]}", _BUILD
    driver = module.driver()
    if driver == 0:
        return "there is no NVIDIA driver", "install one"
    # Within a major version older drivers run newer runtimes.
    if driver // 1000 < module.RUNTIME // 1000:
        return (
            f"they were built with CUDA {_version(module.RUNTIME)}, the driver supports "
            f"{_version(driver)} at most",
            f"update the driver, or build fastllc with CUDA {_version(driver)}",
        )
    return None


def _architectures(module: ModuleType) -> list[int]:
    return [int(found) for found in re.findall(r"\d+", module.ARCHITECTURES)]


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"


def _missing(what: str, help_: str) -> RuntimeError:
    return RuntimeError(
        f"tensors on a CUDA device need kernels for CUDA: {what}. To have them, {help_}. "
        f"{_OTHERWISE}"
    )
