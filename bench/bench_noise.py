"""Normal fills: ours, torch's, and the plain write that neither can beat."""

import pytest
import torch

import fastllc
from fastllc import build_info
from fastllc.kernels import standard_normal

FILLS = {
    "fastllc, into a tensor": lambda out: standard_normal(out, seed=1),
    "fastllc.standard_normal": lambda out: fastllc.standard_normal(
        out.shape, seed=1, dtype=out.dtype
    ),
    "torch normal_": torch.Tensor.normal_,
    "torch fill_": lambda out: out.fill_(1.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FILLS)
def test_fill(benchmark, name, dtype, elements):
    out = torch.empty(elements, dtype=dtype)
    benchmark.group = f"normal fill, {dtype}"
    benchmark.extra_info.update(
        elements=elements,
        bytes=out.nbytes,
        simd=build_info()["simd"],
        threads=torch.get_num_threads(),
    )
    benchmark.pedantic(FILLS[name], args=(out,), rounds=15, warmup_rounds=2)
