"""The native step beyond what one SGLD uses: many chains, frozen ones, masks, shards."""

import math

import pytest
import torch

from fastllc import reference
from fastllc.kernels import Segments, Setting

DTYPES = [torch.float32, torch.float64]
SHAPES = [(300, 113), (7,), (), (0,), (70,)]
K = 4


def take(segments, grads, *args, **options):
    segments.bind(grads)
    return segments.step(*args, **options)


def setting(**changes):
    base = {
        "lr": 1e-2,
        "nbeta": 3.0,
        "localization": 0.5,
        "weight_decay": 0.1,
        "noise_level": 1.0,
        "bounding_box_size": math.inf,
    }
    return Setting(**(base | changes))


# one row for each group, one column for each chain
SETTINGS = [
    [setting(), setting(lr=0.1), setting(noise_level=0.0), setting(bounding_box_size=0.01)],
    [setting(weight_decay=0.0), setting(nbeta=0.0), setting(localization=0.0), setting()],
]
KEYS = [1, 2**64 - 1, 3, 4]
STEPS = [0, 7, 2**32 - 1, 1]


@pytest.fixture(params=DTYPES, ids=str)
def stacked(request):
    """Weights and gradients [K, *shape], anchors [*shape]."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=request.param)

    return (
        [draw(K, *s) for s in SHAPES],
        [draw(K, *s) for s in SHAPES],
        [draw(*s) for s in SHAPES],
    )


def groups():
    return [i % 2 for i in range(len(SHAPES))]


def ids():
    return [10 * i for i in range(len(SHAPES))]


def expected(w, grad, w0, i, k):
    z = reference.standard_normal(
        w[k].numel(), seed=KEYS[k], step=STEPS[k], param=ids()[i], dtype=w.dtype
    ).view(w[k].shape)
    if SETTINGS[groups()[i]][k].noise_level == 0:
        z = torch.zeros_like(z)  # no noise is drawn, nor summed
    following = reference.sgld_step(w[k], grad[k], w0, z, SETTINGS[groups()[i]][k])
    return following, reference.moments(w[k], grad[k], w0, z)


def test_chains_take_their_own_settings_keys_and_steps(stacked):
    weights, grads, anchors = stacked
    before = [w.clone() for w in weights]
    segments = Segments(weights, anchors, ids(), groups(), chains=K)
    assert take(segments, grads, SETTINGS, KEYS, STEPS, moments=True)
    for i, w in enumerate(weights):
        for k in range(K):
            following, moments = expected(before[i], grads[i], anchors[i], i, k)
            assert torch.equal(w[k], following), (i, k)
            decaying = SETTINGS[groups()[i]][k].weight_decay > 0
            count = 9 if decaying else 6
            torch.testing.assert_close(
                torch.from_numpy(segments.sums.moments[k, i, :count]),
                moments[:count],
                rtol=1e-4 if w.dtype == torch.float32 else 1e-12,
                atol=1e-2 if w.dtype == torch.float32 else 1e-10,
            )


def test_a_frozen_chain_is_neither_read_nor_written(stacked):
    weights, grads, anchors = stacked
    for w, g in zip(weights, grads, strict=True):
        w[2], g[2] = math.nan, math.nan
    before = [w.clone() for w in weights]
    segments = Segments(weights, anchors, ids(), groups(), chains=K)
    active = [True, True, False, True]
    assert take(segments, grads, SETTINGS, KEYS, STEPS, active=active, moments=True)
    assert (segments.sums.moments[2] == 0).all()
    assert torch.isfinite(torch.from_numpy(segments.sums.moments)).all()
    for i, w in enumerate(weights):
        assert w[2].isnan().all()
        for k in (0, 1, 3):
            assert torch.equal(w[k], expected(before[i], grads[i], anchors[i], i, k)[0])


def test_non_finite_weights_are_counted_by_chain_and_tensor(stacked):
    weights, grads, anchors = stacked
    grads[0][1, 0, 0], grads[0][1, 299, 112], grads[1][3, 6] = math.nan, math.inf, -math.inf
    segments = Segments(weights, anchors, ids(), groups(), chains=K)
    assert not take(segments, grads, [[setting()] * K] * 2, KEYS, STEPS)
    counts = torch.from_numpy(segments.sums.nonfinite)
    assert counts[1, 0] == 2
    assert counts[3, 1] == 1
    assert counts.sum() == 3


def test_large_finite_weights_are_no_alarm(stacked):
    weights, grads, _anchors = stacked
    for w in weights:
        w.fill_(torch.finfo(w.dtype).max / 4)
    segments = Segments(weights, [None] * len(weights), ids(), groups(), chains=K)
    still = [[setting(lr=0.0, weight_decay=0.0, localization=0.0)] * K] * 2
    assert take(segments, grads, still, KEYS, STEPS)
    assert segments.sums.nonfinite.sum() == 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_masked_elements_keep_their_bits_and_leave_the_sums(stacked, share):
    weights, grads, anchors = stacked
    generator = torch.Generator().manual_seed(1)
    masks = [torch.rand(s, generator=generator) < share for s in SHAPES]
    before = [w.clone() for w in weights]
    segments = Segments(weights, anchors, ids(), groups(), masks=masks, chains=K)
    take(segments, grads, SETTINGS, KEYS, STEPS, moments=True)
    for i, (w, mask) in enumerate(zip(weights, masks, strict=True)):
        for k in range(K):
            following, _ = expected(before[i], grads[i], anchors[i], i, k)
            assert torch.equal(w[k], torch.where(mask, following, before[i][k]))
            displacement = (before[i][k] - anchors[i])[mask].double()
            assert segments.sums.moments[k, i, 1] == pytest.approx(
                displacement.square().sum().item(), rel=1e-5, abs=1e-12
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", [[1], [3, 64, 65, 255], [16384], [20000, 20001, 40003]])
def test_shards_take_the_noise_of_the_whole_tensor(dtype, cuts):
    generator = torch.Generator().manual_seed(2)
    n = 50_000
    whole, grad = (torch.randn(n, generator=generator, dtype=dtype) for _ in range(2))
    sharded = whole.clone()
    args = ([[setting()]], [5], [6])
    take(Segments([whole], [torch.zeros_like(whole)], [7], [0]), [grad], *args)
    for first, last in zip([0, *cuts], [*cuts, n], strict=True):
        shard = sharded[first:last]
        segments = Segments([shard], [torch.zeros_like(shard)], [7], [0], firsts=[first])
        take(segments, [grad[first:last]], *args)
    assert torch.equal(whole, sharded)


def test_the_order_of_the_sum_of_squares_is_the_documented_one():
    """csrc/moments.h, spelled out in numpy for a tensor of two chunks and a bit."""
    import numpy as np

    n = 2 * 16384 + 300
    g = torch.randn(n, generator=torch.Generator().manual_seed(3))
    segments = Segments([torch.zeros(n)], [None], [0], [0])
    take(segments, [g], [[setting()]], [0], [0], moments=True)
    padded = np.zeros(-(-n // 256) * 256, np.float32)
    padded[:n] = g.numpy() ** 2
    lanes = np.zeros((len(padded) // 256, 16), np.float32)
    for row in padded.reshape(-1, 16, 16).transpose(1, 0, 2):
        lanes += row
    while lanes.shape[1] > 1:
        lanes = lanes[:, ::2] + lanes[:, 1::2]
    blocks = lanes[:, 0].astype(np.float64)
    total = 0.0
    for chunk in range(0, len(blocks), 64):
        partial = 0.0
        for block in blocks[chunk : chunk + 64]:
            partial += block
        total += partial
    assert segments.sums.moments[0, 0, 0] == total


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"params": [torch.zeros(K, 3), torch.zeros(2, 3)]}, ValueError,
         r"params\[1\] must have shape \[4, ...\], got \(2, 3\)"),
        ({"anchors": [None, torch.zeros(2)]}, ValueError,
         r"anchors\[1\] must have shape \(3,\), got \(2,\)"),
        ({"anchors": [None, torch.zeros(6)[::2]]}, ValueError, r"anchors\[1\] must be contiguous"),
        ({"masks": [None, torch.zeros(3)]}, TypeError, r"masks\[1\] must be bool, got float32"),
        ({"ids": [0, 2**24]}, ValueError, r"ids must be in \[0, 2\*\*24\), got 16777216"),
        ({"ids": [1, 1]}, ValueError, "ids must differ"),
        ({"groups": [0, -1]}, ValueError, "groups must be >= 0, got -1"),
        ({"firsts": [0, -1]}, ValueError, "firsts must be >= 0, got -1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, error, message):
    arguments = {
        "params": [torch.zeros(K, 3), torch.zeros(K, 3)], "anchors": [None, None], "ids": [0, 1],
        "groups": [0, 0], "chains": K,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        Segments(**(arguments | change))


def test_gradients_are_kept_until_they_have_been_read():
    w = torch.zeros(100_000)
    segments = Segments([w], [None], [0], [0])
    segments.bind([torch.ones(100_000)])
    noise = [torch.full((100_000,), 7.0) for _ in range(3)]  # where freed memory would be reused
    segments.step([[setting(noise_level=0.0, weight_decay=0.0)]], [0], [0])
    assert (w == w[0]).all()
    assert w[0] == pytest.approx(-0.5 * 1e-2 * 3.0)
    assert len(noise) == 3
    with pytest.raises(RuntimeError, match="call bind before each step"):
        segments.step([[setting()]], [0], [1])
