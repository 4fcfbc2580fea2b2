"""What this build is and what it runs on."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

from fastllc import _core
from fastllc.kernels import cuda

__all__ = ["build_info"]


def build_info() -> dict[str, str | int | bool]:
    """Describe the build and the machine; saved with every result.

    Returns
    -------
    dict
        ``version``, ``simd`` (instruction set in use), ``threads``, ``noise_format``, ``cuda``
        (whether this build has kernels for CUDA), ``compiler``, ``python``, ``torch``, ``numpy``,
        ``machine``.

    Examples
    --------
    >>> build_info()["noise_format"]
    1
    """
    return {
        "version": _core.VERSION,
        "simd": _core.isa(),
        "threads": torch.get_num_threads(),
        "noise_format": _core.NOISE_FORMAT,
        "cuda": cuda.built(),
        "compiler": _core.COMPILER,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": importlib.metadata.version("numpy"),
        "machine": platform.machine(),
    }
