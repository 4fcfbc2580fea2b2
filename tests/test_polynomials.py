"""The largest errors stated in csrc/polynomials.h, over all inputs that can occur."""

import numpy as np
import pytest

from fastllc import _core

CHUNK = 1 << 22


def ulp_error(got, exact, dtype):
    return float(
        (np.abs(got.astype(exact.dtype) - exact) / np.spacing(np.abs(exact).astype(dtype))).max()
    )


@pytest.mark.slow
def test_every_logarithm_in_single_precision():
    """Below 2**24 each word; above, one word for each float it can round to."""
    worst = 0.0
    ranges = [(0, 2**24, 1)] + [(2 ** (24 + b), 2 ** (25 + b), 2 ** (b + 1)) for b in range(8)]
    for start, stop, stride in ranges:
        for low in range(start, stop, CHUNK * stride):
            words = np.arange(low, min(low + CHUNK * stride, stop), stride, dtype=np.uint32)
            log, _, _ = _core.box_muller_parts_float32(words)
            u = (words.astype(np.float32) + np.float32(0.5)).astype(np.float64) * 2.0**-32
            exact = -2 * np.log(u)
            inside = exact > 0
            assert (log[~inside] == 0).all()
            worst = max(worst, ulp_error(log[inside], exact[inside], np.float32))
    assert 0.5 < worst <= 1.06, worst


@pytest.mark.slow
def test_every_angle_in_single_precision():
    """By symmetry one quarter turn, both signs of t: the other quarters swap and negate."""
    worst = [0.0, 0.0]
    for low in range(0, 2**30, CHUNK * 8):
        # every word near t = 0, where floats are dense, and every eighth elsewhere
        stride = 1 if low < 2**26 or low >= 2**30 - 2**26 else 8
        for start in range(low, low + CHUNK * 8, CHUNK * stride):
            words = np.arange(start, start + CHUNK * stride, stride, dtype=np.uint32)
            _, sine, cosine = _core.box_muller_parts_float32(words)
            r = words.astype(np.int64)
            t = ((r << 2 | 2) - (r >> 29 << 32)).astype(np.float32).astype(np.float64) * 2.0**-32
            rest = np.pi / 2 * t
            odd = r >> 29 == 1
            for k, (near, far) in enumerate(((sine, cosine), (cosine, sine))):
                exact = (np.sin, np.cos)[k](rest)
                got = np.where(odd, -far if k == 0 else far, near)
                worst[k] = max(worst[k], ulp_error(got, exact, np.float32))
    assert 0.5 < worst[0] <= 1.64, worst
    assert 0.5 < worst[1] <= 1.76, worst


def test_quarters_swap_and_negate():
    words = np.arange(0, 2**30, 12345, dtype=np.uint32)
    _, s0, c0 = _core.box_muller_parts_float32(words)
    for quarter, (sine, cosine) in enumerate([(s0, c0), (c0, -s0), (-s0, -c0), (-c0, s0)]):
        _, s, c = _core.box_muller_parts_float32(words + np.uint32(quarter << 30))
        np.testing.assert_array_equal(s, sine)
        np.testing.assert_array_equal(c, cosine)


def test_double_precision_against_extended():
    """Two million random words and both ends, against 64-bit significands."""
    generator = np.random.default_rng(0)
    words = generator.integers(0, 2**64, 2_000_000, dtype=np.uint64)
    words[:1000] = np.arange(1000, dtype=np.uint64)
    words[1000:2000] = ~np.arange(1000, dtype=np.uint64)
    words[2000:3000] = (np.uint64(1) << np.uint64(62)) + np.arange(1000, dtype=np.uint64)
    log, sine, cosine = _core.box_muller_parts_float64(words)

    high, low = (
        (words >> np.uint64(32)).astype(np.float64),
        (words & np.uint64(0xFFFFFFFF)).astype(np.float64),
    )
    u = (high * 2.0**32 + (low + 0.5)).astype(np.longdouble) * np.longdouble(2.0) ** -64
    exact = -2 * np.log(u)
    inside = exact > 0
    assert ulp_error(log[inside], exact[inside], np.float64) < 1.6
    assert (log[~inside] == 0).all()

    quarter = ((words + (np.uint64(1) << np.uint64(61))) >> np.uint64(62)).astype(np.int64) % 4
    t = ((words << np.uint64(2)) | np.uint64(2)).view(np.int64).astype(np.float64) * 2.0**-64
    rest = (
        t.astype(np.longdouble) * (np.longdouble(np.pi) + np.longdouble(1.2246467991473532e-16)) / 2
    )
    s, c = np.sin(rest), np.cos(rest)
    exact_sine = np.choose(quarter, [s, c, -s, -c])
    exact_cosine = np.choose(quarter, [c, -s, -c, s])
    assert ulp_error(sine, exact_sine, np.float64) < 1.6
    assert ulp_error(cosine, exact_cosine, np.float64) < 1.7
