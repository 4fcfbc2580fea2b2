"""The native step beyond what one sampler uses: many chains, frozen ones, masks, shards."""

import math

import numpy as np
import pytest
import torch

from fastllc import reference
from fastllc._core import Rule
from fastllc.kernels import Member, Segments, Setting, real_dtype
from helpers import DTYPES, LOW, STATE, same_bits

SHAPES = [(130, 131), (7,), (), (0,), (70,)]
K = 4
RULES = list(Rule)


def take(segments, grads, *args, **options):
    segments.bind(grads)
    return segments.step(*args, **options)


def setting(**changes):
    base = {
        "lr": 1e-2,
        "nbeta": 3.0,
        "localization": 0.5,
        "weight_decay": 0.1,
        "alpha": 0.9,
        "eps": 0.1,
        "start": 1.0,
        "corrected": 1.0,
        "beta": 0.7,
        "friction": 0.3,
    }
    return Setting(**(base | changes))


# one row for each group, one column for each chain
SETTINGS = [
    [
        setting(),
        setting(lr=0.1, alpha=0.5),
        setting(noise_level=0.0, friction=0.6),
        setting(bounding_box_size=0.01, beta=0.1),
    ],
    [
        setting(weight_decay=0.0, start=0.0, corrected=0.0),
        setting(nbeta=0.0, eps=2.0),
        setting(localization=0.0, adapt_steps=1.0),
        setting(),
    ],
]
KEYS = [1, 2**64 - 1, 3, 4]
STEPS = [5, 7, 2**32 - 2, 5]  # two of the chains are as old as their state
BORN = 5
THERMOSTATS = [0.1, 0.2, 0.3, 0.4]


def draw_members(rule, dtype, masked=False, seed=0):
    """Weights and state [K, *shape], anchors and masks [*shape]."""
    generator = torch.Generator().manual_seed(seed)
    real = real_dtype(dtype)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator).to(dtype)

    members = []
    for i, shape in enumerate(SHAPES):
        w = draw(K, *shape)
        residual = {torch.bfloat16: torch.int16, torch.float16: torch.float32}.get(dtype)
        members.append(
            Member(
                w,
                id=10 * i,
                group=i % 2,
                w0=draw(*shape),
                mask=torch.rand(shape, generator=generator) < 0.3 if masked else None,
                momentum=draw(K, *shape, dtype=real) if rule not in RULES[:2] else None,
                square_avg=draw(K, *shape, dtype=real).abs() if rule in RULES[1:3] else None,
                residual=None if residual is None else torch.zeros(K, *shape, dtype=residual),
                born=BORN,
            )
        )
    grads = [draw(K, *shape) for shape in SHAPES]
    return members, grads


def chain(member, k):
    """One chain of a stack, as a member of its own."""
    own = {
        name: getattr(member, name)[k].clone()
        for name in ("w", *STATE)
        if getattr(member, name) is not None
    }
    return member._replace(**own)


def expected(rule, member, grad, k):
    return reference.advance(
        rule,
        chain(member, k),
        grad[k],
        SETTINGS[member.group][k],
        KEYS[k],
        STEPS[k],
        THERMOSTATS[k],
    )


def check_chain(member, after, k):
    """The k-th chain is what the reference says; state under a mask is nobody's."""
    assert same_bits(member.w[k], after.w)
    on = ... if member.mask is None else member.mask
    for name in STATE:
        if getattr(member, name) is not None:
            assert same_bits(getattr(member, name)[k][on], getattr(after, name)[on]), name


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_chains_take_their_own_settings_keys_steps_and_state(rule, dtype, masked):
    members, grads = draw_members(rule, dtype, masked)
    wanted = [
        [expected(rule, m, g, k) for k in range(K)] for m, g in zip(members, grads, strict=True)
    ]
    segments = Segments(members, rule, chains=K)
    finite = take(segments, grads, SETTINGS, KEYS, STEPS, thermostats=THERMOSTATS, moments=True)
    assert finite
    single = dtype != torch.float64
    for i, m in enumerate(members):
        for k in range(K):
            check_chain(m, wanted[i][k], k)
            moments = wanted[i][k].moments
            if SETTINGS[m.group][k].weight_decay == 0:  # nobody needs some of them then
                moments[[7, 8, 12] if rule in RULES[1:3] else [7, 8]] = 0
            torch.testing.assert_close(
                torch.from_numpy(segments.sums.moments[k, i]),
                moments,
                rtol=1e-4 if single else 1e-12,
                atol=1e-2 if single else 1e-10,
            )
    for k in range(K):
        parts = [
            (SETTINGS[m.group][k].lr, wanted[i][k].kinetic, wanted[i][k].updated)
            for i, m in enumerate(members)
        ]
        change = reference.thermostat_change(parts) if rule == Rule.sgnht else 0.0
        assert segments.thermostats[k] == pytest.approx(THERMOSTATS[k] + change, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_many_chains_are_as_many_single_ones(rule, dtype):
    members, grads = draw_members(rule, dtype, masked=True)
    single = [[chain(m, k) for m in members] for k in range(K)]
    together = Segments(members, rule, chains=K)
    apart = [Segments(own, rule) for own in single]
    thermostats, theirs = THERMOSTATS, list(THERMOSTATS)
    for step in range(2):
        steps = [s + step for s in STEPS]
        take(together, grads, SETTINGS, KEYS, steps, thermostats=thermostats, moments=True)
        thermostats = together.thermostats
        for k, segments in enumerate(apart):
            take(
                segments,
                [g[k] for g in grads],
                [[row[k]] for row in SETTINGS],
                [KEYS[k]],
                [steps[k]],
                thermostats=[theirs[k]],
                moments=True,
            )
            theirs[k] = segments.thermostats[0]
            assert (segments.sums.moments[0] == together.sums.moments[k]).all()
            for m, own in zip(members, single[k], strict=True):
                assert same_bits(m.w[k], own.w)
                for name in STATE:
                    if getattr(m, name) is not None:
                        assert same_bits(getattr(m, name)[k], getattr(own, name)), name
        assert theirs == thermostats


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_frozen_chain_is_neither_read_nor_written(rule, dtype):
    members, grads = draw_members(rule, dtype)
    for m, g in zip(members, grads, strict=True):
        for tensor in (m.w, g, m.momentum, m.square_avg):
            if tensor is not None:
                tensor[2] = math.nan
        if m.residual is not None:
            m.residual[2] = 77
    frozen = [chain(m, 2) for m in members]
    wanted = [
        {k: expected(rule, m, g, k) for k in (0, 1, 3)} for m, g in zip(members, grads, strict=True)
    ]
    segments = Segments(members, rule, chains=K)
    assert take(
        segments,
        grads,
        SETTINGS,
        KEYS,
        STEPS,
        active=[True, True, False, True],
        thermostats=THERMOSTATS,
        moments=True,
    )
    assert (segments.sums.moments[2] == 0).all()
    assert (segments.sums.nonfinite == 0).all()
    assert np.isfinite(segments.sums.moments).all()
    assert segments.thermostats[2] == THERMOSTATS[2]
    for m, before, after in zip(members, frozen, wanted, strict=True):
        for name in ("w", *STATE):
            if getattr(m, name) is not None:
                assert same_bits(getattr(m, name)[2], getattr(before, name)), name
        for k in (0, 1, 3):
            check_chain(m, after[k], k)


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_non_finite_weights_are_counted_by_chain_and_tensor(dtype):
    members, grads = draw_members(Rule.sgld, dtype)
    grads[0][1, 0, 0], grads[0][1, 129, 130], grads[1][3, 6] = math.nan, math.inf, -math.inf
    segments = Segments(members, chains=K)
    assert not take(segments, grads, [[setting()] * K] * 2, KEYS, STEPS)
    counts = segments.sums.nonfinite
    assert counts[1, 0] == 2
    assert counts[3, 1] == 1
    assert counts.sum() == 3


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_large_finite_weights_are_no_alarm(dtype):
    members, grads = draw_members(Rule.sgld, dtype)
    for m in members:
        m.w.fill_(torch.finfo(dtype).max / 4)
    segments = Segments([m._replace(w0=None) for m in members], chains=K)
    still = [[setting(lr=0.0, weight_decay=0.0, localization=0.0)] * K] * 2
    assert take(segments, grads, still, KEYS, STEPS)
    assert segments.sums.nonfinite.sum() == 0


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_masked_elements_keep_their_bits_and_leave_the_sums(dtype, share):
    members, grads = draw_members(Rule.sgld, dtype)
    generator = torch.Generator().manual_seed(1)
    members = [
        m._replace(mask=torch.rand(s, generator=generator) < share)
        for m, s in zip(members, SHAPES, strict=True)
    ]
    before = [m.w.clone() for m in members]
    free = [
        [expected(Rule.sgld, m._replace(mask=None), g, k).w for k in range(K)]
        for m, g in zip(members, grads, strict=True)
    ]
    segments = Segments(members, chains=K)
    take(segments, grads, SETTINGS, KEYS, STEPS, moments=True)
    for i, m in enumerate(members):
        for k in range(K):
            assert same_bits(m.w[k], torch.where(m.mask, free[i][k], before[i][k]))
            displacement = (before[i][k].double() - m.w0.double())[m.mask]
            assert segments.sums.moments[k, i, 1] == pytest.approx(
                displacement.square().sum().item(), rel=1e-5, abs=1e-12
            )


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


F64 = {"dtype": torch.float64}
MISFITS = {
    "chains": ({"w": torch.zeros(2, 3)}, ValueError,
               r"params\[1\] must have shape \[4, ...\], got \(2, 3\)"),
    "anchor's shape": ({"w0": torch.zeros(2)}, ValueError,
                       r"w0\[1\] must have shape \(3,\), got \(2,\)"),
    "an anchor for each chain": ({"w0": torch.zeros(K, 3)}, ValueError,
                                 r"w0\[1\] must have shape \(3,\), got \(4, 3\)"),
    "anchor's strides": ({"w0": torch.zeros(6)[::2]}, ValueError, r"w0\[1\] must be contiguous"),
    "mask's dtype": ({"mask": torch.zeros(3)}, TypeError, r"mask\[1\] must be bool, got float32"),
    "mask's shape": ({"mask": torch.ones(4).bool()}, ValueError,
                     r"mask\[1\] must have shape \(3,\), got \(4,\)"),
    "momentum's shape": ({"momentum": torch.zeros(3)}, ValueError,
                         r"momentum\[1\] must have shape \(4, 3\), got \(3,\)"),
    "momentum's dtype": ({"momentum": torch.zeros(K, 3, **F64)}, TypeError,
                         r"momentum\[1\] must be float32, got float64"),
    "sparse momentum": ({"momentum": torch.zeros(K, 3).to_sparse()}, RuntimeError,
                        r"momentum\[1\] must be dense \(torch.strided\), got torch.sparse_coo"),
    "no tensor": ({"momentum": 0.0}, TypeError, r"momentum\[1\] must be a tensor, got float"),
    "expanded state": ({"square_avg": torch.zeros(3).expand(K, 3)}, ValueError,
                       r"square_avg\[1\] must be contiguous"),
    "residual's dtype": ({"w": torch.zeros(K, 3).bfloat16(), "residual": torch.zeros(K, 3)},
                         TypeError, r"residual\[1\] must be int16, got float32"),
    "id": ({"id": 2**24}, ValueError, r"id must be in \[0, 2\*\*24\), got 16777216"),
    "the same id": ({"id": 0}, ValueError, "ids must differ"),
    "group": ({"group": -1}, ValueError, "group must be >= 0, got -1"),
    "first": ({"first": -1}, ValueError, "first must be >= 0, got -1"),
    "born": ({"born": -1}, ValueError, "born must be >= 0, got -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused(case):
    change, error, message = MISFITS[case]
    member = Member(torch.zeros(K, 3), id=1)
    Segments([Member(torch.zeros(K, 3), id=0), member], chains=K)
    with pytest.raises(error, match=message):
        Segments([Member(torch.zeros(K, 3), id=0), member._replace(**change)], chains=K)


@pytest.mark.parametrize("kind", ["momentum", "w0", "mask"])
def test_state_that_shares_memory_with_a_weight_is_refused(kind):
    w = torch.zeros(12)
    tensor = w[3:9].view(torch.bool)[:12] if kind == "mask" else w
    with pytest.raises(ValueError, match="share memory"):
        Segments([Member(w, id=0, **{kind: tensor})], Rule.sghmc)


def test_gradients_are_kept_until_they_have_been_read():
    w = torch.zeros(100_000)
    segments = Segments([Member(w, id=0)])
    segments.bind([torch.ones(100_000)])
    noise = [torch.full((100_000,), 7.0) for _ in range(3)]  # where freed memory would be reused
    segments.step([[setting(noise_level=0.0, weight_decay=0.0)]], [0], [0])
    assert (w == w[0]).all()
    assert w[0] == pytest.approx(-0.5 * 1e-2 * 3.0)
    assert len(noise) == 3
    with pytest.raises(RuntimeError, match="call bind before each step"):
        segments.step([[setting()]], [0], [1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_each_chain_is_pulled_to_its_own_row_of_the_anchors(dtype):
    """As if each chain stepped alone, with the one anchor that is its own."""
    members, grads = draw_members(Rule.sgld, dtype)
    rows = [2, 0, 0, 1]
    stacks = [torch.randn(3, *shape).to(dtype) for shape in SHAPES]
    wanted = []
    for k, row in enumerate(rows):
        for m, g, w0 in zip(members, grads, stacks, strict=True):
            wanted.append(expected(Rule.sgld, m._replace(w0=w0[row]), g, k).w)
    members = [m._replace(w0=w0) for m, w0 in zip(members, stacks, strict=True)]
    segments = Segments(members, Rule.sgld, chains=K, anchors=rows)
    take(segments, grads, SETTINGS, KEYS, STEPS)
    found = [m.w[k] for k in range(K) for m in members]
    assert all(map(same_bits, found, wanted))


@pytest.mark.parametrize("anchors", [[0, 0, 1], [0, 0, 0, -1], [0, 0, 0, 1]])
def test_anchors_must_fit_chains_and_their_rows(anchors):
    members, _ = draw_members(Rule.sgld, torch.float32)
    members = [m._replace(w0=torch.zeros(3, *m.w.shape[1:])) for m in members]
    with pytest.raises(ValueError, match=r"anchors must be 4 rows|w0\[0\] must have shape \(2,"):
        Segments(members, Rule.sgld, chains=K, anchors=anchors)
