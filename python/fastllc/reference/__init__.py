"""The native code once more, in readable PyTorch.

It is the oracle of the tests, and the fallback for devices without a kernel. On the CPU it gives
the bits of the native code: the same operations in the same order, each rounded once. (Sums are
in double precision here and in the order of csrc/moments.h there.)
"""

from fastllc.reference.noise import philox, random_words, standard_normal
from fastllc.reference.sketch import buckets_and_signs, sketch
from fastllc.reference.step import Advance, advance, thermostat_change

__all__ = [
    "Advance",
    "advance",
    "buckets_and_signs",
    "philox",
    "random_words",
    "sketch",
    "standard_normal",
    "thermostat_change",
]
