from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHAIN: np.dtype[np.void]
COMPILER: str
COMPONENTS: tuple[str, ...]
MAX_SKETCH: int
MOMENTS: tuple[str, ...]
NOISE_FORMAT: int
PAIR: np.dtype[np.void]
SAMPLES: np.dtype[np.void]
SEGMENT: np.dtype[np.void]
SETTING: np.dtype[np.void]
VERSION: str

class DType(IntEnum):
    float32 = 0
    float64 = 1
    bfloat16 = 2
    float16 = 3

class Rule(IntEnum):
    sgld = 0
    rmsprop = 1
    adam = 2
    sghmc = 3
    sgnht = 4
    baoab = 5

class StepTables:
    def __init__(
        self,
        rule: Rule,
        segments: NDArray[np.void],
        chains: NDArray[np.void],
        settings: NDArray[np.void],
        moments: NDArray[np.float64],
        nonfinite: NDArray[np.int64],
    ) -> None: ...
    def sketch(self, tables: NDArray[np.float64] | None, seed: int) -> None: ...
    def run(self, moments: bool, threads: int) -> int: ...

def box_muller_parts_float32(words: NDArray[np.uint32]) -> tuple[Any, Any, Any]: ...
def box_muller_parts_float64(words: NDArray[np.uint64]) -> tuple[Any, Any, Any]: ...
def isa() -> str: ...
def localization_penalty(
    dtype: DType, pairs: NDArray[np.void], strength: float, threads: int
) -> float: ...
def standard_normal(
    dtype: DType,
    out: int,
    numel: int,
    first: int,
    key: int,
    step: int,
    param: int,
    threads: int,
) -> None: ...
def order_samples(
    keys: NDArray[np.uint64],
    epoch: int,
    n: int,
    replacement: bool,
    out: NDArray[np.int32] | NDArray[np.int64],
    threads: int,
) -> None: ...
def take_rows(
    tensors: NDArray[np.void], index: NDArray[np.int32] | NDArray[np.int64], threads: int
) -> None: ...
