"""The native step on parts of tensors: noise and sums by the element of the whole."""

import numpy as np
import pytest
import torch

from chains import (
    KEYS,
    RULES,
    SETTINGS,
    STEPS,
    THERMOSTATS,
    K,
    chain,
    check_chain,
    draw_members,
    setting,
    take,
)
from fastllc import reference
from fastllc.kernels import Member, Segments, real_dtype
from helpers import DTYPES, LOW, same_bits


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("cuts", [[1], [3, 64, 65, 255], [16384], [20000, 20001, 40003]])
def test_shards_take_the_noise_of_the_whole_tensor(rule, dtype, cuts):
    """Without residuals, so that what is rounded at random takes the whole's bits too."""
    generator = torch.Generator().manual_seed(2)
    n, real = 50_000, real_dtype(dtype)
    whole, grad, w0 = (torch.randn(n, generator=generator).to(dtype) for _ in range(3))
    zeros = torch.zeros(n, dtype=real)
    state = {"momentum": zeros} if rule not in RULES[:2] else {}
    state |= {"square_avg": zeros.clone()} if rule in RULES[1:3] else {}
    sharded, own = whole.clone(), {name: t.clone() for name, t in state.items()}
    args = ([[setting()]], [5], [6])
    take(Segments([Member(whole, id=7, w0=w0, born=6, **state)], rule), [grad], *args)
    for first, last in zip([0, *cuts], [*cuts, n], strict=True):
        piece = slice(first, last)
        part = {name: t[piece] for name, t in own.items()}
        member = Member(sharded[piece], id=7, w0=w0[piece], first=first, born=6, **part)
        take(Segments([member], rule), [grad[piece]], *args)
    assert same_bits(whole, sharded)
    assert all(same_bits(state[name], own[name]) for name in state)


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("first", [2**32 - 10, 2**33 - 23, 2**34 - 31])
def test_more_elements_than_32_bits_count(rule, dtype, first):
    """A shard across the element, and across the counter, at which 32 bits are used up."""
    members, grads = draw_members(rule, dtype)
    members = [m._replace(first=first, born=STEPS[0] - 1) for m in members[-1:]]
    before = [chain(members[0], k) for k in range(K)]
    take(Segments(members, rule, chains=K), grads[-1:], SETTINGS, KEYS, [STEPS[0]] * K,
         thermostats=THERMOSTATS)  # fmt: skip
    for k in range(K):
        args = SETTINGS[0][k], KEYS[k], STEPS[0], THERMOSTATS[k]
        check_chain(members[0], reference.advance(rule, before[k], grads[-1][k], *args), k)


def test_the_order_of_the_sum_of_squares_is_the_documented_one():
    """csrc/moments.h, spelled out in numpy for a tensor of two chunks and a bit."""
    n = 2 * 16384 + 300
    g = torch.randn(n, generator=torch.Generator().manual_seed(3))
    segments = Segments([Member(torch.zeros(n), id=0)])
    take(segments, [g], [[setting()]], [0], [0], moments=True)
    padded = np.zeros(-(-n // 256) * 256, np.float32)
    padded[:n] = g.numpy()
    lanes = np.zeros((len(padded) // 256, 16), np.float32)
    # One rounding: 64 bits of mantissa hold a product of floats and, with room to spare for terms
    # of like size, its sum with another float.
    for row in padded.reshape(-1, 16, 16).transpose(1, 0, 2).astype(np.longdouble):
        lanes = (lanes + row * row).astype(np.float32)
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
