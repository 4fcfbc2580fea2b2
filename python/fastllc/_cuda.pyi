import numpy as np
from numpy.typing import NDArray

ARCHITECTURES: str
COMPILER: str
NOISE_FORMAT: int
RUNTIME: int
VERSION: str

class Step:
    def __init__(
        self, rule: int, segments: NDArray[np.void], n_chains: int, n_groups: int, device: int
    ) -> None: ...
    def workspace(self, moments: bool, sketch_dim: int) -> int: ...
    def launches(self, moments: bool, sketch_dim: int) -> int: ...
    def run(
        self,
        stream: int,
        chains: int,
        settings: int,
        nonfinite: int,
        moments: int,
        sketches: int,
        sketch_dim: int,
        sketch_seed: int,
        workspace: int,
    ) -> None: ...

def driver() -> int: ...
def localization_penalty(
    dtype: int,
    pairs: NDArray[np.void],
    strength: float,
    device: int,
    stream: int,
    result: int,
    workspace: int,
) -> None: ...
def localization_workspace(dtype: int, pairs: NDArray[np.void]) -> int: ...
def standard_normal(
    dtype: int,
    out: int,
    numel: int,
    first: int,
    key: int,
    step: int,
    param: int,
    device: int,
    stream: int,
) -> None: ...
