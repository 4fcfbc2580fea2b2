"""What a call costs when there is almost nothing to compute."""

import pytest
import torch

import fastllc
from fastllc import build_info
from fastllc.bench.workloads import STEPS, TINY, Unavailable, Workload
from fastllc.kernels import standard_normal

STEP_NAMES = [name for name in STEPS if name.startswith(("fastllc", "torch f", "devinterp"))]


def describe(benchmark, group, elements):
    benchmark.group = group
    benchmark.extra_info.update(
        elements=elements,
        bytes=16 * elements,
        simd=build_info()["simd"],
        threads=torch.get_num_threads(),
    )


@pytest.mark.parametrize("name", STEP_NAMES)
@torch.no_grad()
def test_tiny_step(benchmark, name):
    load = Workload(TINY)
    try:
        step = STEPS[name](load)
    except Unavailable as error:
        pytest.skip(str(error))
    describe(benchmark, "2,000 elements in 6 tensors", load.elements)
    benchmark.pedantic(step, rounds=50, iterations=20, warmup_rounds=2)


@pytest.mark.parametrize("name", ["fastllc", "fastllc, metrics"])
@torch.no_grad()
def test_new_gradients(benchmark, name):
    """Gradients at other addresses every step, as backward leaves them: tables are written."""
    load = Workload(TINY)
    describe(benchmark, "2,000 elements in 6 tensors, gradients that move", load.elements)
    benchmark.pedantic(STEPS[name](load), setup=load.rotate, rounds=500, warmup_rounds=20)


@torch.no_grad()
def test_construction(benchmark):
    load = Workload(TINY)
    describe(benchmark, "making a sampler", load.elements)
    make = lambda: fastllc.SGLD(load.params, localization=1.0, seed=1)  # noqa: E731
    benchmark.pedantic(make, rounds=50, warmup_rounds=2)


def test_smallest_fill(benchmark):
    out = torch.empty(4)
    describe(benchmark, "4 normals", 4)
    benchmark.pedantic(standard_normal, args=(out,), kwargs={"seed": 1}, rounds=50, iterations=100)


def test_smallest_penalty(benchmark):
    params = [torch.ones(shape, requires_grad=True) for shape in TINY]
    anchors = [torch.zeros(shape) for shape in TINY]
    describe(benchmark, "localization penalty, 2,000 elements in 6 tensors", 2_000)
    benchmark.pedantic(
        fastllc.localization_penalty, args=(params, anchors, 1.0), rounds=50, iterations=20
    )
