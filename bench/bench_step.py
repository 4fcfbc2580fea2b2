"""The step over large and small workloads, ours and the others'."""

import pytest
import torch

from fastllc import build_info
from fastllc.bench.workloads import SMALL, STEPS, Unavailable, Workload, gpt2_shapes, one_shape

BYTES = {"torch copy_": 8, "our normal fill": 4, "torch fused SGD, no noise": 12}  # an element
SHAPES = {
    "1 tensor": one_shape,
    "148 tensors": gpt2_shapes,
    "100,000 in 10 tensors": lambda _: SMALL,
}


@pytest.mark.parametrize("name", [name for name in STEPS if name != "torch.compile"])
@pytest.mark.parametrize("case", SHAPES)
@torch.no_grad()
def test_step(benchmark, case, name, elements):
    load = Workload(SHAPES[case](elements))
    try:
        step = STEPS[name](load)
    except Unavailable as error:
        pytest.skip(str(error))
    benchmark.group = case
    benchmark.extra_info.update(
        elements=load.elements,
        bytes=BYTES.get(name, 16) * load.elements,
        simd=build_info()["simd"],
        threads=torch.get_num_threads(),
    )
    benchmark.pedantic(step, setup=load.rotate, rounds=15, warmup_rounds=2)
