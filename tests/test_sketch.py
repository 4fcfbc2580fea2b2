"""Count sketches: their hash, what they keep of vectors, the same bits everywhere."""

import math

import numpy as np
import pytest
import torch

from conftest import supported_instruction_sets
from fastllc import SGLD, reference
from fastllc._core import Rule
from fastllc.kernels import Member, Segments, Setting, Sketch
from test_rules import DTYPES, MASKS, RULES, draw_grads, make_members, setting

DIMS = [1, 7, 64, 1000, 65536]
# Rows of 16 in turn, each rounded once in a bucket of the arithmetic's precision: at most some
# hundreds of additions here, errors of either sign.
TOLERANCE = {torch.float64: 1e-13}


def native(rule, dtype, mask, sketch, *, exact=True, steps=2):
    """Sketches of some steps by native code, and the reference's."""
    members = make_members(rule, dtype, mask, exact=exact)
    segments = Segments(members, rule)
    generator = torch.Generator().manual_seed(1)
    for step in range(5, 5 + steps):
        grads = draw_grads(members, generator)
        args = (setting(), 17, step, 0.2)
        parts = [
            reference.advance(rule, m, g, *args, sketch=sketch)
            for m, g in zip(members, grads, strict=True)
        ]
        segments.bind(grads)
        segments.step([[setting()]], [17], [step], thermostats=[0.2], sketch=sketch)
        yield segments.sketches[0], sum(part.sketches for part in parts).numpy()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_precision_and_mask_against_the_reference(rule, dtype, mask):
    for found, wanted in native(rule, dtype, mask, Sketch(1000, 9)):
        scale = np.abs(wanted).max(axis=1, keepdims=True)
        assert (np.abs(found - wanted) <= TOLERANCE.get(dtype, 1e-5) * scale).all()
        assert (scale[4] > 0) == (mask != "nothing")


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("exact", [True, False])
def test_every_dim_against_the_reference(dim, exact):
    for dtype in (torch.float64, torch.bfloat16):
        sketch = Sketch(dim, 2**64 - 1)
        for found, wanted in native(Rule.adam, dtype, "half", sketch, exact=exact):
            assert found.shape == (5, dim)
            np.testing.assert_allclose(
                found, wanted, rtol=0, atol=TOLERANCE.get(dtype, 1e-5) * np.abs(wanted).max()
            )


def test_the_hash_is_that_of_the_reference_element_by_element():
    """One gradient element at a time, so that every bucket and sign is seen alone."""
    dim, seed, first = 100, 12, 16384 - 40
    w = torch.zeros(80, requires_grad=True)
    segments = Segments([Member(w, id=3, first=first)])
    buckets, signs = reference.buckets_and_signs(80, dim, seed=seed, param=3, first=first)
    for i in range(80):
        grad = torch.zeros(80)
        grad[i] = 2.0
        segments.bind([grad])
        segments.step([[Setting(1.0, noise_level=0.0)]], [0], [i], sketch=Sketch(dim, seed))
        expected = np.zeros(dim)
        expected[buckets[i]] = signs[i]
        assert np.array_equal(segments.sketches[0][0], expected)
    # What the definition in csrc/sketch.h says of words, spelled out for the first element.
    counter = torch.tensor(16384 // 64 - 1)
    words = [int(x) for x in reference.philox(seed, counter, 3 << 40 | 3 << 32)]
    row, lane = 1, 8  # element 24 of the counter's 64
    h = words[2] >> 16
    assert int(buckets[0]) == ((h * dim >> 16) + lane) % dim
    assert int(signs[0]) == 1 - 2 * (words[0] >> (16 * row + lane) & 1)


def test_buckets_and_signs_are_even_and_independent():
    n, dim = 2**20, 64
    buckets, signs = reference.buckets_and_signs(n, dim, seed=4, param=1)
    assert abs(signs.sum().item()) < 5 * math.sqrt(n)
    assert abs((signs[:-1] * signs[1:]).sum().item()) < 5 * math.sqrt(n)
    rows = torch.bincount(buckets[::16], minlength=dim).double()  # n / 16 independent starts
    expected = n / 16 / dim
    chi_square = ((rows - expected) ** 2 / expected).sum().item()
    assert abs(chi_square - (dim - 1)) < 5 * math.sqrt(2 * (dim - 1))
    others = reference.buckets_and_signs(n, dim, seed=4, param=2)[1]
    assert abs((signs * others).sum().item()) < 5 * math.sqrt(n)


def inner_products(v, w, dim, seeds):
    def sketches(x):
        return torch.stack([reference.sketch(x, dim, seed=s, param=0) for s in range(seeds)])

    return (sketches(v) * sketches(w)).sum(1)


@pytest.mark.parametrize("dim", [16, 50, 64])
def test_inner_products_are_unbiased_with_the_variance_of_a_count_sketch(dim):
    """Var <Sv, Sw> = sum over pairs i != j that may meet of (v_i^2 w_j^2 + v_i w_i v_j w_j) / dim.

    Pairs of different rows may, with probability 1 / dim; those of one row, never.
    """
    n, seeds = 1024, 1500
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(n, generator=generator, dtype=torch.float64)
    w = 0.5 * v + torch.randn(n, generator=generator, dtype=torch.float64)
    found = inner_products(v, w, dim, seeds)
    a, b, ab = (x.view(-1, 16).sum(1) for x in (v * v, w * w, v * w))  # by row
    variance = (a.sum() * b.sum() - a @ b + ab.sum() ** 2 - ab @ ab).item() / dim
    error = math.sqrt(variance / seeds)
    assert abs(found.mean().item() - (v @ w).item()) < 5 * error
    # The fourth moment of a sum of some thousands of pairs is about that of a normal.
    assert abs(found.var().item() / variance - 1) < 5 * math.sqrt(2 / seeds) * 1.3


def test_a_column_is_sketched_as_well_as_anything():
    """Elements 16 apart, as in a column of a matrix, have no smaller table than others."""
    n, dim, seeds = 4096, 64, 1500
    v = torch.zeros(n, dtype=torch.float64)
    v[5::16] = 1.0
    count = n / 16
    found = inner_products(v, v, dim, seeds)
    variance = 2 * count * (count - 1) / dim
    assert abs(found.mean().item() - count) < 5 * math.sqrt(variance / seeds)
    assert abs(found.var().item() / variance - 1) < 0.3


def test_sketches_are_linear():
    """Of the gradient: twice and the sum."""
    found = []
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(5000, generator=generator) for _ in range(2))
    for grad in (a, b, 2 * a - 3 * b):
        w = torch.zeros(5000, requires_grad=True)
        w.grad = grad
        sampler = SGLD([w], lr=0.1, seed=0, sketch_dim=64)
        sampler.step()
        found.append(sampler.get_sketches().scaled_grad)
    scale = found[2].abs().max().item()
    assert torch.allclose(2 * found[0] - 3 * found[1], found[2], rtol=0, atol=1e-5 * scale)


def test_a_step_is_the_sum_of_its_components():
    """What the weights have moved by, sketched, is what the components' sketches say."""
    w = torch.randn(3000, dtype=torch.float64).requires_grad_()
    before = w.detach().clone()
    w.grad = torch.randn(3000, dtype=torch.float64)
    sampler = SGLD(
        [w], lr=0.1, nbeta=2.0, localization=1.0, weight_decay=0.3, seed=0, sketch_dim=100
    )
    sampler.step()
    s = sampler.get_sketches()
    moved = reference.sketch(w.detach() - before, 100, seed=0, param=0).float()
    assert torch.allclose(
        s.noise - s.scaled_grad - s.localization - s.weight_decay, moved, atol=1e-5
    )


def test_chains_have_tables_of_their_own():
    generator = torch.Generator().manual_seed(0)
    w, grads = (torch.randn(3, 70, 300, generator=generator) for _ in range(2))
    lone = [w[k].clone() for k in range(3)]
    stacked = Segments([Member(w, id=2)], chains=3)
    stacked.bind([grads])
    settings = [[setting(lr=0.01 * (k + 1), bounding_box_size=math.inf) for k in range(3)]]
    stacked.step(settings, [4, 5, 6], [0, 1, 2], active=[True, False, True], sketch=Sketch(50, 1))
    for k in range(3):
        single = Segments([Member(lone[k], id=2)])
        single.bind([grads[k]])
        single.step([[settings[0][k]]], [4 + k], [k], sketch=Sketch(50, 1))
        expected = np.zeros((5, 50)) if k == 1 else single.sketches[0]
        assert np.array_equal(stacked.sketches[k], expected)


SCRIPT = """
import hashlib, torch, fastllc
from fastllc import SGLD, RMSpropSGLD

def report(cls, dtype, dim, kept):
    generator = torch.Generator().manual_seed(0)
    shapes = [(300, 301), (7,), (), (0,), (200, 700)]
    def draw(shape):
        return torch.randint(-999, 999, shape, generator=generator).to(dtype).div(256)
    w = [draw(s).requires_grad_() for s in shapes]
    masks = [torch.rand(s, generator=generator) < kept for s in shapes]
    sampler = cls(
        w, lr=1e-2, nbeta=3.0, localization=0.5, weight_decay=0.1, seed=11, mask=masks,
        sketch_dim=dim, sketch_seed=3,
    )
    for _ in range(2):
        for p in w:
            p.grad = draw(p.shape)
        sampler.step()
    bits = torch.stack(sampler.get_sketches()).view(torch.uint8).numpy().tobytes()
    print(cls.__name__, dtype, dim, kept, hashlib.sha256(bits).hexdigest()[:16])

for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    report(SGLD, torch.float32, 1024, 1.0)
    report(SGLD, torch.float32, 1024, 0.05)
    report(SGLD, torch.float64, 100, 0.5)
    report(RMSpropSGLD, torch.float32, 60000, 1.0)
"""

# Recorded once. They change only with the noise format (csrc/noise.h).
GOLDEN = """\
SGLD torch.float32 1024 1.0 5437fd97536e9e93
SGLD torch.float32 1024 0.05 d08cba65e1b4ca61
SGLD torch.float64 100 0.5 1be1f759659740f2
RMSpropSGLD torch.float32 60000 1.0 8e3fd1b841213323
"""


@pytest.mark.parametrize("isa", supported_instruction_sets())
def test_golden_hashes_for_one_to_three_threads(run_python, isa):
    done = run_python(SCRIPT, FASTLLC_SIMD=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 3 * GOLDEN
