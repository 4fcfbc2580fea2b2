"""Stacks of chains for the tests of the native step, and what the reference makes of each."""

import torch

from fastllc import reference
from fastllc._core import Rule
from fastllc.kernels import Member, Setting, real_dtype
from helpers import STATE, same_bits

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
