"""devinterp 2 on our samplers, by one line."""

from fastllc.compat.devinterp2.swap import Acceleration, accelerate

__all__ = ["Acceleration", "accelerate"]
