"""The module _cuda on a machine without a GPU, which most that build it are."""

import numpy as np
import pytest
import torch

from emulated import native_kernels, table_of
from fastllc import _core
from fastllc.kernels import Member

cuda = pytest.importorskip("fastllc._cuda", reason="built without a CUDA compiler")
without_driver = pytest.mark.skipif(cuda.driver() > 0, reason="there is a CUDA driver")


def test_the_module_loads_without_a_gpu_and_says_what_it_is():
    assert cuda.NOISE_FORMAT == _core.NOISE_FORMAT
    assert cuda.VERSION == _core.VERSION
    assert cuda.RUNTIME >= 12010
    assert all(75 <= int(a) <= 999 for a in cuda.ARCHITECTURES.split())
    assert cuda.COMPILER.startswith("NVIDIA ")


def test_tables_are_checked_before_the_device_is_looked_for():
    w = torch.zeros(4)
    table = table_of([Member(w, id=0)], [w])
    table["dtype"] = 7
    with pytest.raises(ValueError, match=r"segments\[0\].dtype must be in \[0, 4\), got 7"):
        cuda.Step(0, table, 1, 1, 0)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got number 2"):
        cuda.standard_normal(2, w.data_ptr(), 4, 0, 0, 0, 0, 0, 0)


def test_both_modules_plan_the_same():
    w = torch.zeros(3, 70_000)
    table = table_of([Member(w, id=0)], [w], chains=3)
    step = cuda.Step(0, table, 3, 1, 0)
    emulated = native_kernels().Step(0, table, 3, 1)
    for arguments in ((False, 0), (True, 0), (False, 100), (True, 1)):
        assert step.workspace(*arguments) == emulated.workspace(*arguments)
        assert step.launches(*arguments) == emulated.launches(*arguments)


@without_driver
def test_without_a_driver_every_call_says_so():
    w = torch.zeros(4)
    step = cuda.Step(0, table_of([Member(w, id=0)], [w]), 1, 1, 0)
    pairs = np.zeros(1, _core.PAIR)
    pairs["w"] = pairs["w0"] = w.data_ptr()
    pairs["numel"] = 4
    for call in (
        lambda: step.run(0, 8, 8, 8, 0, 0, 0, 0, 8),
        lambda: cuda.standard_normal(0, w.data_ptr(), 4, 0, 0, 0, 0, 0, 0),
        lambda: cuda.localization_penalty(0, pairs, 1.0, 0, 0, 8, 8),
    ):
        with pytest.raises(RuntimeError, match=r"CUDA, .*(driver|device)"):
            call()
    assert torch.equal(w, torch.zeros(4))
