"""Noise: known answers, torch's stateless layout, the address, and its distribution."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastllc import chain_key, reference, standard_normal
from refusals import refuses

DTYPES = [torch.float32, torch.float64]
VECTORS = [
    vector
    for vector in json.loads(
        (Path(__file__).parent / "data/torch_stateless_normal.json").read_text()
    )["vectors"]
    if int(vector["offset"]) < 2**60  # beyond it, no element index reaches
]
# The definition rounds the angle once where torch rounds u, then 2 pi u: 1.02e-6 and 1.9e-15 were
# the largest differences of torch's vectors to exact arithmetic.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 5e-15}


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    low = counter[0] | counter[1] << 32
    low = low - 2**64 if low >= 2**63 else low
    words = reference.philox(
        key[0] | key[1] << 32,
        torch.tensor(low),
        counter[2] | counter[3] << 32,
    )
    assert " ".join(f"{int(word):08x}" for word in words) == expected


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['dtype']}-{v['seed']}+{v['offset']}")
def test_layout_is_that_of_torchs_stateless_normals(vector):
    """An offset of torch's key counts blocks: it is where `first` begins."""
    dtype = getattr(torch, vector["dtype"])
    first = int(vector["offset"]) * (4 if dtype == torch.float32 else 2)
    theirs = torch.tensor([float.fromhex(v) for v in vector["values"]], dtype=dtype)
    ours = standard_normal(64, seed=int(vector["seed"]), first=first, dtype=dtype)
    assert (ours - theirs).abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_installed_torch_where_it_has_stateless_normals(dtype):
    random = pytest.importorskip("torch.func._random")
    key = torch.tensor([42, 0], dtype=torch.uint64)
    try:
        theirs = random.normal(key, (1001,), dtype=dtype)
    except NotImplementedError:
        pytest.skip(f"torch {torch.__version__} has no stateless normals on the CPU")
    assert (standard_normal(1001, seed=42, dtype=dtype) - theirs).abs().max() < TOLERANCE[dtype]


@settings(max_examples=60)
@given(
    numel=st.one_of(st.integers(0, 70), st.integers(200, 700), st.integers(16300, 16500)),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    param=st.integers(0, 2**24 - 1),
    first=st.one_of(st.integers(0, 300), st.integers(2**34 - 9, 2**34 + 9), st.just(2**61 + 1)),
    dtype=st.sampled_from(DTYPES),
)
def test_native_noise_has_the_bits_of_the_reference(numel, seed, step, param, first, dtype):
    address = {"seed": seed, "step": step, "param": param, "first": first, "dtype": dtype}
    assert torch.equal(
        standard_normal(numel, **address), reference.standard_normal(numel, **address)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_part_of_the_address_matters(dtype):
    base = {"seed": 1, "step": 2, "param": 3}
    z = standard_normal(1000, **base, dtype=dtype)
    assert torch.equal(z, standard_normal(1000, **base, dtype=dtype))
    variants = [
        dict(base, **{name: value + bump}) for name, value in base.items() for bump in (1, 8)
    ]
    variants += [dict(base, seed=1 + 2**32), dict(base, seed=1 + 2**63)]
    for variant in variants:
        other = standard_normal(1000, **variant, dtype=dtype)
        assert not (other == z).any()
        # |r| sqrt(n) is standard normal for independent streams
        assert abs(torch.dot(z, other)) / math.sqrt(1000) < 6


def test_streams_of_neighbouring_chains_and_parameters_are_uncorrelated():
    n = 100_000
    z = torch.stack(
        [
            standard_normal(n, seed=chain_key(0, c), step=s, param=p).double()
            for c in range(3)
            for s in range(3)
            for p in range(3)
        ]
        + [standard_normal(n, seed=chain_key(1, 0), first=4).double()]
    )
    correlation = (z @ z.T) / math.sqrt(n)
    assert correlation.fill_diagonal_(0).abs().max() < 5.5


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 32), (torch.float64, 64)])
def test_extreme_words_give_finite_normals(dtype, bits):
    from fastllc import _core

    words = np.array([0, 1, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1], f"u{bits // 8}")
    log, sine, cosine = getattr(_core, f"box_muller_parts_{str(dtype)[6:]}")(words)
    assert np.isfinite([log, sine, cosine]).all()
    assert log[0] == pytest.approx(2 * math.log(2) * (bits + 1), rel=1e-6)  # the largest |z|
    assert log[2] == 0  # where u rounds to 1
    assert (log >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_one_to_eight_of_ten_million_draws(dtype):
    n = 10_000_000
    z = standard_normal(n, seed=7, dtype=dtype).double()
    moment = {k: 0.0 if k % 2 else float(math.prod(range(1, k, 2))) for k in range(1, 17)}
    for k in range(1, 9):
        error = math.sqrt((moment[2 * k] - moment[k] ** 2) / n)
        assert abs(z.pow(k).mean().item() - moment[k]) < 5 * error, k


def test_tails_and_the_whole_distribution():
    n = 20_000_000
    z = standard_normal(n, seed=3).double()
    for t in (1.0, 2.0, 3.0, 4.0, 5.0):
        p = math.erfc(t / math.sqrt(2))
        count = (z.abs() > t).sum().item()
        assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 1, t
    assert z.abs().max() < 6.77
    # Kolmogorov-Smirnov: P(sqrt(n) D > 2.7) < 1e-6
    cdf = torch.special.ndtr(z.sort().values)
    d = (cdf - torch.arange(1, n + 1).double() / n).abs().max().item()
    assert math.sqrt(n) * d < 2.7


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"seed": -1}, ValueError, r"seed must be in \[0, 2\*\*64\), got -1"),
        ({"seed": 2**64}, ValueError, "seed must be in"),
        ({"seed": 0, "step": 2**32}, ValueError, "step must be in"),
        ({"seed": 0, "param": 2**24}, ValueError, "param must be in"),
        ({"seed": 0, "first": -1}, ValueError, "first must be in"),
        (
            {"seed": 0, "dtype": torch.int32},
            TypeError,
            "dtype must be torch.float32 or torch.float64",
        ),
        ({"seed": 0, "dtype": torch.float16}, TypeError, "dtype must be"),
        ({"seed": 0.5}, TypeError, "seed must be an int"),
    ],
)
def test_bad_addresses_are_refused(bad, error, message):
    with pytest.raises(error, match=message):
        standard_normal(3, **bad)
    with pytest.raises(ValueError, match="size must not be negative"):
        standard_normal((2, -1), seed=0)


BAD_NORMALS = {
    "negative size": ({"size": -1}, ValueError, "size", "-1"),
    "negative in a shape": ({"size": (2, -1)}, ValueError, "size", "-1"),
    "size of float": ({"size": 2.5}, TypeError, "size"),
    "shape of float": ({"size": (2.5,)}, TypeError, "size"),
    "size of str": ({"size": "3"}, TypeError, "size"),
    "no size": ({"size": None}, TypeError, "size"),
    "negative seed": ({"seed": -1}, ValueError, "seed", "got -1"),
    "large seed": ({"seed": 2**64}, ValueError, "seed", f"got {2**64}"),
    "float seed": ({"seed": 1.0}, TypeError, "seed", "got 1.0"),
    "bool seed": ({"seed": True}, TypeError, "seed", "got True"),
    "no seed": ({"seed": None}, TypeError, "seed", "got None"),
    "tensor seed": ({"seed": torch.tensor(1.0)}, TypeError, "seed"),
    "large step": ({"step": 2**32}, ValueError, "step", f"got {2**32}"),
    "negative step": ({"step": -1}, ValueError, "step", "got -1"),
    "float step": ({"step": 0.5}, TypeError, "step", "got 0.5"),
    "large param": ({"param": 2**24}, ValueError, "param", f"got {2**24}"),
    "negative param": ({"param": -1}, ValueError, "param", "got -1"),
    "negative first": ({"first": -1}, ValueError, "first", "got -1"),
    "large first": ({"first": 2**62}, ValueError, "first", f"got {2**62}"),
    "half": ({"dtype": torch.half}, TypeError, "dtype", "float16"),
    "complex": ({"dtype": torch.complex64}, TypeError, "dtype", "complex64"),
    "python dtype": ({"dtype": float}, TypeError, "dtype", "float"),
    "unknown device": ({"device": "nonsense"}, RuntimeError, "nonsense"),
}


@pytest.mark.parametrize("case", BAD_NORMALS)
def test_standard_normal_refuses(case):
    change, error, *words = BAD_NORMALS[case]
    with refuses(error, *words):
        standard_normal(**{"size": 3, "seed": 0, **change})


def test_integers_of_numpy_and_torch_are_integers():
    plain = standard_normal((5,), seed=3, step=2, param=1, first=4)
    odd = standard_normal(
        np.int64(5), seed=np.uint8(3), step=torch.tensor(2), param=np.int16(1), first=np.uint64(4)
    )
    assert torch.equal(plain, odd)
