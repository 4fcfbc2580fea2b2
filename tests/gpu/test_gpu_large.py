"""Tensors beyond 2^31 elements."""

import pytest
import torch

from fastllc._core import Rule
from fastllc.kernels import Chains, DeviceSegments, Member, Segments, Setting
from gpu import DEVICE, NEEDS_GPU, raw

pytestmark = NEEDS_GPU

N = 2**31 + 12_345
EDGES = (0, 2**30 - 500, 2**31 - 500, N - 1000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_end_of_a_tensor_of_more_than_two_billion_elements(dtype):
    residual = dtype == torch.bfloat16
    free, _ = torch.cuda.mem_get_info()
    needed = N * (2 * dtype.itemsize + 2 * residual) + 2**30
    if free < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free memory, there are {free / 2**30:.0f}")
    w = torch.zeros(N, dtype=dtype, device=DEVICE)
    grad = torch.zeros(N, dtype=dtype, device=DEVICE)
    kept = torch.zeros(N, dtype=torch.int16, device=DEVICE) if residual else None
    for edge in EDGES:
        w[edge : edge + 1000] = torch.linspace(-1, 1, 1000, device=DEVICE)
        grad[edge : edge + 1000] = torch.linspace(3, 1, 1000, device=DEVICE)
    setting = Setting(1e-2, nbeta=2.0, weight_decay=0.1)
    whole = DeviceSegments([Member(w, id=3, residual=kept)], Rule.sgld, Chains(1, DEVICE))
    pieces = [
        Member(
            w[edge : edge + 1000].cpu(),
            id=3,
            first=edge,
            residual=torch.zeros(1000, dtype=torch.int16) if residual else None,
        )
        for edge in EDGES
    ]
    other = Segments(pieces, Rule.sgld)
    for step in range(2):
        whole.bind([grad])
        whole.step([[setting]], [11], [step], moments=True)
        other.bind([grad[edge : edge + 1000].cpu() for edge in EDGES])
        other.step([[setting]], [11], [step])
    for edge, piece in zip(EDGES, pieces, strict=True):
        assert raw(w[edge : edge + 1000]) == raw(piece.w), edge
    assert whole.nonfinite.tolist() == [[0]]
    # The variance of all noise, from the sum of its squares: within 6 standard errors.
    mean_square = whole.moments[0, 0, 2].item() / N
    assert abs(mean_square - 1) < 6 * (2 / N) ** 0.5


def test_a_large_sum_of_chains():
    """More than 2^31 elements in chains that are small each."""
    chains, n = 2**12, 2**19 + 64
    free, _ = torch.cuda.mem_get_info()
    needed = chains * n * 4 + 2**30
    if free < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free memory, there are {free / 2**30:.0f}")
    w = torch.zeros(chains, n, dtype=torch.bfloat16, device=DEVICE)
    segments = DeviceSegments([Member(w, id=0)], Rule.sgld, Chains(chains, DEVICE), chains=chains)
    segments.bind([torch.zeros_like(w)])
    segments.step([[Setting(1.0)] * chains], list(range(chains)), [0] * chains)
    last = torch.zeros(1, n, dtype=torch.bfloat16)
    other = Segments([Member(last, id=0)], Rule.sgld, chains=1)
    other.bind([torch.zeros_like(last)])
    other.step([[Setting(1.0)]], [chains - 1], [0])
    assert raw(w[-1:]) == raw(last)
