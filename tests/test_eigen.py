"""Streamed eigenpairs, against the eigendecomposition of the whole covariance."""

import math

import pytest
import torch

from fastllc.estimators.eigen import TopEigenpairs
from helpers import draw


@pytest.fixture(autouse=True)
def one_thread(threads):
    """On a busy machine two threads of small products wait for each other."""
    threads(1)


def streamed(samples, k, batch):
    top = TopEigenpairs(k)
    for part in samples.split(batch):
        top.update(part)
    return top.eigenpairs()


def whole(samples):
    values, vectors = torch.linalg.eigh(torch.cov(samples.double().T))
    return values.flip(0), vectors.T.flip(0)


def same_directions(a, b, tolerance):
    return ((a.double() * b.double()).sum(dim=1).abs() > 1 - tolerance).all()


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_of_low_rank_it_is_exact(batch, dtype, tolerance):
    """The mean, far off and outside the span of the rest, is no direction of the covariance."""
    spread = torch.tensor([5.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    samples = (draw((400, 4), torch.float64) * spread) @ draw((4, 60), torch.float64, 1)
    samples = (samples + 10 * draw((60,), torch.float64, 2)).to(dtype)
    found = streamed(samples, 4, batch)
    values, vectors = whole(samples)
    torch.testing.assert_close(found.values, values[:4], rtol=tolerance, atol=0)
    assert same_directions(found.vectors, vectors[:4], tolerance)
    assert found.vectors.dtype == dtype
    assert found.trace == pytest.approx(values.sum().item(), rel=tolerance)
    assert found.error < tolerance * values[0].item()


def test_there_are_no_more_pairs_than_the_rank():
    samples = draw((50, 2)) @ draw((2, 30), seed=1)
    found = streamed(samples, 5, 3)
    assert found.values.shape == (2,)
    assert found.vectors.shape == (2, 30)
    few = draw((3, 30))
    assert streamed(few, 5, 1).values.shape == (2,)  # three points span a plane
    assert streamed(torch.ones(4, 30), 5, 2).values.shape == (0,)


SPECTRA = {
    "power": 1 / (1 + torch.arange(200.0)),
    "geometric": 0.9 ** torch.arange(200.0),
    "bulk": torch.cat([torch.tensor([10.0, 8.0, 6.0, 5.0, 4.0]), torch.full((195,), 0.3)]),
    "flat": torch.ones(200),
}


@pytest.mark.parametrize("batch", [1, 4, 50])
@pytest.mark.parametrize("name", SPECTRA)
def test_errors_stay_within_the_bound_told(name, batch):
    samples = draw((1500, 200), torch.float64) * SPECTRA[name].double().sqrt() + 3.0
    found = streamed(samples, 5, batch)
    values = whole(samples)[0]
    short = values[:5] - found.values
    assert (short > -1e-10).all()
    assert (short <= found.error).all()
    assert found.trace == pytest.approx(values.sum().item(), rel=1e-10)
    gram = found.vectors @ found.vectors.T
    torch.testing.assert_close(gram, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-8)


def test_a_steep_spectrum_comes_out_as_the_gaussians_own():
    """Eigenvalues of n samples' covariance scatter by sqrt(2 / n) about the law's."""
    law, n = 4.0 ** -torch.arange(40.0, dtype=torch.float64), 4000
    turn = torch.linalg.qr(draw((40, 40), torch.float64, 1)).Q
    samples = (draw((n, 40), torch.float64) * law.sqrt()) @ turn.T
    found = streamed(samples, 5, 8)
    torch.testing.assert_close(found.values, whole(samples)[0][:5], rtol=1e-6, atol=0)
    assert ((found.values / law[:5] - 1).abs() < 5 * math.sqrt(2 / n)).all()
    # A direction turns towards another by sqrt(a b / n) / (a - b): 2/3 / sqrt(n) for its neighbour.
    overlaps = (found.vectors * turn.T[:5]).sum(dim=1).abs()
    assert (1 - overlaps**2 < 25 * 2 * (4 / 9) / n).all()


def test_memory_does_not_grow():
    top = TopEigenpairs(3)
    for seed in range(100):
        top.update(draw((5, 50), seed=seed))
    tensors = [v for v in vars(top).values() if isinstance(v, torch.Tensor)]
    assert sum(t.numel() for t in tensors) == (2 * 3 + 17) * 50


def test_samples_are_copied_and_half_precision_widened():
    samples = draw((40, 10)).bfloat16()
    top = TopEigenpairs(2)
    for part in samples.split(4):
        part = part.clone()
        top.update(part)
        part.zero_()
    found = top.eigenpairs()
    assert found.vectors.dtype == torch.float32
    torch.testing.assert_close(found.values, whole(samples.float())[0][:2], rtol=1e-4, atol=0)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        TopEigenpairs(0)
    top = TopEigenpairs(2)
    with pytest.raises(ValueError, match="at least two samples, got 0"):
        top.eigenpairs()
    with pytest.raises(TypeError, match=r"deltas must be floating point, got torch\.int64"):
        top.update(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \[n, d\], got \[3\]"):
        top.update(torch.ones(3))
    with pytest.raises(ValueError, match="deltas must be finite"):
        top.update(torch.tensor([[1.0, math.nan, 0.0]]))
    top.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least two samples, got 1"):
        top.eigenpairs()
    with pytest.raises(ValueError, match=r"shape \[n, 3\], got \[..., 4\]"):
        top.update(torch.ones(1, 4))


@pytest.mark.parametrize("sizes", [(40, 60), (1, 99), (99, 1), (0, 100)])
def test_merged_streams_are_one_stream(sizes):
    samples = draw((100, 6), torch.float64) @ draw((6, 30), torch.float64, 1) + 3
    first, second = (TopEigenpairs(6) for _ in sizes)
    for top, part in zip((first, second), samples.split(sizes), strict=True):
        if len(part):
            top.update(part)
    first.merge(second)
    values, _ = whole(samples)
    found = first.eigenpairs()
    torch.testing.assert_close(found.values, values[:6], rtol=1e-11, atol=0)
    assert found.trace == pytest.approx(values.sum().item(), rel=1e-11)


def test_the_error_covers_what_merged_streams_have_dropped():
    samples = draw((300, 80), torch.float64) * SPECTRA["power"][:80].double().sqrt()
    first, second = TopEigenpairs(3), TopEigenpairs(3)
    first.update(samples[:150])
    second.update(samples[150:])
    first.merge(second)
    values, _ = whole(samples)
    found = first.eigenpairs()
    assert found.error > 0
    assert (found.values <= values[:3] * (1 + 1e-12)).all()
    assert (values[:3] <= found.values + found.error).all()
