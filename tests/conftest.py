import functools
import os
import subprocess
import sys
from collections.abc import Callable

import hypothesis
import pytest
import torch

import fake_device
from fastllc import build_info
from fastllc.engine import products
from fastllc.kernels import cuda
from helpers import OWN, SAMPLERS

# Time limits are for machines that do nothing else.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def seed() -> None:
    """What a test draws from torch's generator is the same alone, in any order and each time."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def alike() -> None:
    """A loss is called as often, and gradients have the same bits, on processors of any kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_halved", lambda: False)
        yield


@pytest.fixture
def threads() -> Callable[[int], None]:
    """Sets torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads: Callable[[int], None]) -> None:
    """Two threads of a busy machine wait for each other, over work that is small."""
    threads(1)


@pytest.fixture(params=fake_device.players())
def device(request, monkeypatch) -> fake_device.Device:
    """Tensors of the CPU that pose as those of a device; see `fake_device`."""
    yield fake_device.install(monkeypatch, request.param)
    cuda.load.cache_clear()


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script in a new interpreter with further environment variables."""

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def supported_instruction_sets() -> list[str]:
    order = ["baseline", "avx2", "avx512"]
    return order[: order.index(str(build_info()["simd"])) + 1]


@pytest.fixture(params=SAMPLERS, ids=lambda sampler: sampler.__name__)
def kind(request) -> Callable[..., torch.optim.Optimizer]:
    """Makes a sampler of each class, with settings of its own."""
    return functools.partial(request.param, **OWN[request.param])
