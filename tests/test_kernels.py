"""The native step beyond what one sampler uses: many chains, frozen ones, masks, anchors."""

import math

import numpy as np
import pytest
import torch

from chains import (
    KEYS,
    RULES,
    SETTINGS,
    SHAPES,
    STEPS,
    THERMOSTATS,
    K,
    chain,
    check_chain,
    draw_members,
    expected,
    setting,
    take,
)
from fastllc import reference
from fastllc._core import Rule
from fastllc.kernels import Segments
from helpers import DTYPES, LOW, STATE, same_bits


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
                moments[10 : 13 if rule in RULES[1:3] else 12] = 0
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
