"""Every rule, in every precision and with every kind of mask, against the reference: bit by bit."""

import math

import numpy as np
import pytest
import torch

from fastllc import reference
from fastllc._core import Rule
from fastllc.kernels import Member, Segments, Setting, real_dtype

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
RULES = list(Rule)
SHAPES = [(130, 131), (7,), (), (0,), (257,), (4, 64)]
STATE = ("momentum", "square_avg", "residual")
MASKS = {
    "none": lambda shape, generator: None,
    "half": lambda shape, generator: torch.rand(shape, generator=generator) < 0.5,
    "one percent": lambda shape, generator: torch.rand(shape, generator=generator) < 0.01,
    "a row": lambda shape, generator: (torch.arange(math.prod(shape)) // 64 == 1).view(shape),
    "nothing": lambda shape, generator: torch.zeros(shape, dtype=torch.bool),
}


def setting(**changes):
    base = {
        "lr": 0.05,
        "nbeta": 3.0,
        "localization": 0.5,
        "weight_decay": 0.1,
        "bounding_box_size": 0.4,
        "alpha": 0.9,
        "eps": 0.1,
        "start": 1.0,
        "corrected": 1.0,
        "adapt_steps": 2,
        "beta": 0.7,
        "friction": 0.3,
    }
    return Setting(**(base | changes))


def make_members(rule, dtype, mask, *, exact=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = {torch.bfloat16: torch.int16, torch.float16: torch.float32}.get(dtype)
    members = []
    for i, shape in enumerate(SHAPES):
        w = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        zeros = torch.zeros(shape, dtype=real_dtype(dtype))
        members.append(
            Member(
                w,
                id=3 * i,
                w0=w.clone(),
                mask=MASKS[mask](shape, generator),
                momentum=zeros.clone() if rule not in (Rule.sgld, Rule.rmsprop) else None,
                square_avg=zeros.clone() if rule in (Rule.rmsprop, Rule.adam) else None,
                residual=torch.zeros(shape, dtype=low) if low and exact else None,
                born=5,
            )
        )
    return members


def draw_grads(members, generator):
    return [
        torch.randn(m.w.shape, generator=generator, dtype=torch.float64).to(m.w.dtype)
        for m in members
    ]


def same_bits(a, b):
    return a.dtype == b.dtype and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()


def bits(tensor):
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def walk_both(members, rule, s, steps=4, key=2**63 + 9, thermostat=0.3):
    """Step the members; after each compare with the reference, moved along the same path."""
    segments = Segments(members, rule)
    generator = torch.Generator().manual_seed(1)
    for step in range(5, 5 + steps):
        grads = draw_grads(members, generator)
        wanted = [
            reference.advance(rule, m, g, s, key, step, thermostat)
            for m, g in zip(members, grads, strict=True)
        ]
        segments.bind(grads)
        segments.step([[s]], [key], [step], thermostats=[thermostat], moments=True)
        for i, (m, after) in enumerate(zip(members, wanted, strict=True)):
            assert same_bits(bits(m.w), bits(after.w)), (step, m.id)
            for name in STATE:
                if (found := getattr(m, name)) is not None and m.w.numel():
                    if m.mask is not None:  # elsewhere state is nobody's
                        found = found[m.mask]
                        assert same_bits(found, getattr(after, name)[m.mask]), (step, m.id, name)
                    else:
                        assert same_bits(found, getattr(after, name)), (step, m.id, name)
            single = m.w.dtype != torch.float64
            # ac, cn and cc are not summed where nobody needs them; cc may be ww.
            if s.weight_decay == 0:
                after.moments[10 : 13 if rule in (Rule.rmsprop, Rule.adam) else 12] = 0
            np.testing.assert_allclose(
                segments.sums.moments[0, i],
                after.moments.numpy(),
                rtol=1e-4 if single else 1e-12,
                atol=2e-6 * math.sqrt(m.w.numel() + 1) * 10 if single else 1e-10,
            )
        if rule == Rule.sgnht:
            change = reference.thermostat_change(
                [(s.lr, after.kinetic, after.updated) for after in wanted]
            )
            assert segments.thermostats[0] == pytest.approx(thermostat + change, rel=1e-6)
            thermostat = segments.thermostats[0]
        else:
            assert segments.thermostats[0] == thermostat


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_native_and_reference_agree(rule, dtype, mask):
    walk_both(make_members(rule, dtype, mask), rule, setting())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_stochastic_rounding_agrees_too(rule, dtype):
    walk_both(make_members(rule, dtype, "half", exact=False), rule, setting())
    walk_both(make_members(rule, dtype, "none", exact=False), rule, setting())


@pytest.mark.parametrize(
    "changes",
    [
        {"bounding_box_size": math.inf, "weight_decay": 0.0},
        {"localization": 0.0, "bounding_box_size": math.inf},
        {"start": 0.0, "corrected": 0.0},
        {"adapt_steps": 0},
        {"adapt_steps": math.inf},
        {"noise_level": 0.0},
        {"friction": 1.0},
        {"lr": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_settings_of_the_rules(rule, changes):
    for dtype in (torch.float32, torch.float64):
        walk_both(make_members(rule, dtype, "none"), rule, setting(**changes))
