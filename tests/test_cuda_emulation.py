"""The CUDA kernels' own text, run on the host, against the CPU core: the same bits."""

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
    draw_members,
    setting,
)
from emulated import Emulation, copy_of, same_state, table_of
from fastllc._core import Rule
from fastllc.kernels import Member, Segments, real_dtype
from helpers import DTYPES, LOW


def both(rule, members, grads, settings, keys, steps, *, thermostats=None, moments=True, n=3, order=0):
    """Step the CPU core and the emulation side by side, all of their outcome compared."""
    thermostats = [0.0] * len(keys) if thermostats is None else list(thermostats)
    twins = copy_of(members)
    segments = Segments(members, rule, chains=len(keys))
    table = table_of(twins, grads, len(keys))
    emulation = Emulation(rule, table, settings, keys, steps, thermostats)
    for i in range(n):
        segments.bind(grads)
        segments.step(
            settings, keys, [s + i for s in steps], thermostats=thermostats, moments=moments
        )
        thermostats = segments.thermostats
        emulation.step(moments=moments, order=order + i)
        same_state(members, twins)
        if moments:
            assert np.array_equal(emulation.moments, segments.sums.moments, equal_nan=True)
        assert np.array_equal(emulation.nonfinite, segments.sums.nonfinite)
        assert emulation.chains["thermostat"].tolist() == thermostats
        assert emulation.chains["step"].tolist() == [s + i + 1 for s in steps]
        grads = [g.mul_(-0.75) for g in grads]
    return emulation


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_precision_and_mask(rule, dtype, masked, moments):
    members, grads = draw_members(rule, dtype, masked)
    steps = [s - 3 if s > 2**31 else s for s in STEPS]
    both(rule, members, grads, SETTINGS, KEYS, steps, thermostats=THERMOSTATS, moments=moments)
