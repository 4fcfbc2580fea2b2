"""The CUDA kernels' own text, run on the host, against the CPU core: the same bits."""

import math

import numpy as np
import pytest
import torch

from chains import BORN, KEYS, RULES, SETTINGS, THERMOSTATS, K, draw_members, setting
from emulated import Emulation, copy_of, native_kernels, same_state, table_of
from fastllc._core import Rule
from fastllc.kernels import Member, Segments, Sketch, real_dtype
from helpers import DTYPES, LOW

_emulated = native_kernels()

ALL = [*DTYPES, *LOW]
AGES = [5, 7, 2**32 - 9, 5]  # as STEPS, but with room for further steps
# Sketches round in another order: some thousand additions at most in a bucket here.
ROUNDING = {torch.float64: 1e-13}


def both(rule, members, grads, settings=SETTINGS, keys=KEYS, steps=AGES, **options):
    """Take steps with the CPU core and with the emulation, and compare all that they leave."""
    moments, n = options.get("moments", True), options.get("n", 3)
    sketch, order = options.get("sketch"), options.get("order", 0)
    thermostats = list(options.get("thermostats", [0.0] * len(keys)))
    active = options.get("active", [True] * len(keys))
    anchors = options.get("anchors")
    twins = copy_of(members)
    segments = Segments(members, rule, chains=len(keys), anchors=anchors)
    table = table_of(twins, grads, len(keys), anchored=anchors is not None)
    emulation = Emulation(
        rule, table, settings, keys, steps, thermostats, active, anchors if anchors else 0
    )
    on = np.array(active)
    for i in range(n):
        segments.bind(grads)
        segments.step(
            settings,
            keys,
            [s + i for s in steps],
            active=active,
            thermostats=thermostats,
            moments=moments,
            sketch=sketch,
        )
        thermostats = segments.thermostats
        emulation.step(moments=moments, sketch=sketch, order=order and order + i)
        same_state(members, twins)
        if moments:
            assert np.array_equal(emulation.moments[on], segments.sums.moments[on])
        assert np.array_equal(emulation.nonfinite[on], segments.sums.nonfinite[on])
        assert emulation.chains["thermostat"].tolist() == thermostats
        assert emulation.chains["step"].tolist() == [
            s + (i + 1) * o for s, o in zip(steps, on, strict=True)
        ]
        if sketch:
            wanted = segments.sketches[on]
            scale = np.abs(wanted).max(axis=2, keepdims=True)
            rounding = ROUNDING.get(members[0].w.dtype, 1e-5)
            assert (np.abs(emulation.sketches[on] - wanted) <= rounding * scale).all()
        for grad in grads:
            grad.mul_(-0.75)
    return emulation


def member(shape, dtype=torch.float32, *, rule=Rule.sgld, chains=1, exact=True, seed=0, **more):
    """A member with state and an anchor, and its gradient, by (chain, *shape)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator).to(dtype)

    real = real_dtype(dtype)
    residual = {torch.bfloat16: torch.int16, torch.float16: torch.float32}.get(dtype)
    own = Member(
        draw(chains, *shape),
        id=seed,
        w0=draw(*shape),
        momentum=draw(chains, *shape, dtype=real) if rule not in RULES[:2] else None,
        square_avg=draw(chains, *shape, dtype=real).abs() if rule in RULES[1:3] else None,
        residual=torch.zeros(chains, *shape, dtype=residual) if residual and exact else None,
        born=BORN,
    )
    return own._replace(**more), draw(chains, *shape)


def one(shape, dtype=torch.float32, **options):
    """One chain of one tensor, four steps after its first."""
    rule = options.get("rule", Rule.sgld)
    own, grad = member(shape, dtype, **options)
    return rule, [own], [grad], [[setting(bounding_box_size=2.5)]], [11], [BORN + 4]


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_precision_and_mask(rule, dtype, masked, moments):
    members, grads = draw_members(rule, dtype, masked)
    both(rule, members, grads, thermostats=THERMOSTATS, moments=moments)


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_stochastic_rounding(rule, dtype):
    members, grads = draw_members(rule, dtype, masked=True)
    members = [m._replace(residual=None) for m in members]
    both(rule, members, grads, thermostats=THERMOSTATS)


@pytest.mark.parametrize("step", [0, 2**32 - 1])
def test_the_first_and_the_last_step(step):
    members, grads = draw_members(Rule.sgld, torch.float32)
    both(Rule.sgld, members, grads, steps=[step] * K, n=1)


# Around blocks, chunks and spans, and a shard that begins within a counter of the noise.
@pytest.mark.parametrize("first", [0, 3, 16384 * 64 - 130])
@pytest.mark.parametrize("numel", [1, 2, 255, 257, 16383, 16385, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shards_of_any_size_at_any_place(dtype, numel, first):
    both(*one((numel,), dtype, first=first), n=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_more_than_one_span(dtype):
    emulation = both(*one((2 * 64 * 16384 + 5,), dtype, first=1000), n=2, order=3)
    assert emulation.moments.shape == (1, 1, 13)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_addresses_that_no_vector_may_be_loaded_from(rule, dtype):
    def shifted(tensor):
        if tensor is None:
            return None
        base = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
        return base[1:].view(tensor.shape).copy_(tensor)

    own, grad = member((3, 700), dtype, rule=rule)
    own = own._replace(mask=torch.rand(3, 700, generator=torch.Generator().manual_seed(0)) < 0.5)
    tensors = ("w", "w0", "mask", "momentum", "square_avg", "residual")
    twin = own._replace(**{name: shifted(getattr(own, name)) for name in tensors})
    keys, steps, settings = [11], [BORN + 1], [[setting()]]
    segments = Segments([own], rule, chains=1)
    gradient = shifted(grad)
    table = table_of([twin], [gradient])
    (launch,) = _emulated.pack(int(rule), table, 1, 1, True)
    assert launch[-1][0][-1] is False
    emulation = Emulation(rule, table, settings, keys, steps)
    segments.bind([grad])
    segments.step(settings, keys, steps, thermostats=[0.0], moments=True)
    emulation.step(moments=True)
    same_state([own], [twin])
    assert np.array_equal(emulation.moments, segments.sums.moments)


def masks(numel, generator):
    """Densities on both sides of an eighth, in every mixture within a chunk."""

    def random(share):
        return torch.rand(numel, generator=generator) < share

    index = torch.arange(numel)
    blocks = index // 256
    yield "nothing", random(0.0)
    yield "everything", random(1.0)
    yield "sparse", random(0.004)
    yield "an eighth of a block at most", random(0.03)
    yield "around an eighth", random(0.05)
    yield "half", random(0.5)
    yield "blocks in turn", (blocks % 3 == 0) | random(0.01)
    yield "mostly blocks, then little", torch.where(blocks < 40, random(0.9), random(0.02))
    yield "first and last element", (index == 0) | (index == numel - 1)


@pytest.mark.parametrize("sketched", [False, True])
@pytest.mark.parametrize("first", [0, 1, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_under_masks_visit_blocks_in_the_order_of_the_cpu(dtype, first, sketched):
    numel = 3 * 16384 + 77
    sketch = Sketch(100, 5) if sketched else None
    for name, mask in masks(numel, torch.Generator().manual_seed(1)):
        arguments = one((numel,), dtype, rule=Rule.adam, first=first, mask=mask)
        emulation = both(*arguments, n=1, sketch=sketch)
        assert (emulation.moments[0, 0, 2] > 0) == (name != "nothing"), name


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_order_of_ctas_leaves_no_trace(order):
    members, grads = draw_members(Rule.sgnht, torch.float32, masked=True)
    sketch = Sketch(64, 3)
    found = [
        both(
            Rule.sgnht,
            copy_of(members),
            [g.clone() for g in grads],
            thermostats=THERMOSTATS,
            sketch=sketch,
            order=o,
        )
        for o in (0, order)
    ]
    for a, b in [found]:
        assert np.array_equal(a.sketches, b.sketches)
        assert np.array_equal(a.moments, b.moments)
        assert np.array_equal(a.chains, b.chains)


@pytest.mark.parametrize("count", [23, 24, 201])
def test_more_tensors_than_a_kernel_is_told_of_at_once(count):
    pairs = [member((1 + 37 * i % 600,), seed=i) for i in range(count)]
    members, grads = [m for m, _ in pairs], [g for _, g in pairs]
    emulation = both(Rule.sgld, members, grads, [[setting()]], [3], [BORN + 2])
    placings = 0 if count <= 23 else math.ceil(count / 200)
    assert emulation.native.launches(True, 0) == 1 + placings


def test_dtypes_side_by_side_move_one_thermostat():
    members, grads = [], []
    for i, dtype in enumerate(ALL * 2):
        own, grad = member((300 + i,), dtype, rule=Rule.sgnht, chains=K, seed=i, group=i % 2)
        members.append(own)
        grads.append(grad)
    emulation = both(Rule.sgnht, members, grads, thermostats=THERMOSTATS, order=1)
    assert emulation.native.launches(True, 0) == len(ALL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_each_chain_is_pulled_to_its_own_row_of_the_anchors(dtype):
    members, grads = draw_members(Rule.sgld, dtype)
    members = [m._replace(w0=torch.stack([m.w0, -m.w0, 2 * m.w0])) for m in members]
    both(Rule.sgld, members, grads, anchors=[2, 0, 0, 1])


def test_without_anchors():
    members, grads = draw_members(Rule.sgld, torch.float32)
    both(Rule.sgld, [m._replace(w0=None) for m in members], grads)


@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_chains_that_stand_still_are_neither_read_nor_written(rule, moments):
    members, grads = draw_members(rule, torch.float32, masked=True)
    for m, g in zip(members, grads, strict=True):
        m.w[2], g[2] = math.nan, math.nan
    emulation = both(
        rule,
        members,
        grads,
        thermostats=THERMOSTATS,
        active=[True, True, False, True],
        moments=moments,
        sketch=Sketch(10, 1),
    )
    assert (emulation.nonfinite[2] == -7).all()
    assert np.isnan(emulation.sketches[2]).all()
    filled = emulation.table["numel"] > 0
    assert np.isnan(emulation.moments[2, filled]).all()


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("moments", [False, True])
def test_lost_chains_stop_unless_told_to_go_on(dtype, moments):
    members, grads = draw_members(Rule.sgld, dtype)
    grads[0][1, 0, 0], grads[0][1, 129, 130], grads[1][3, 6] = math.nan, math.inf, -math.inf
    table = table_of(members, grads, K)
    still = [[setting()] * K] * 2
    emulation = Emulation(Rule.sgld, table, still, KEYS, AGES, active=[1, 1, 0, 2])
    for expected in ([2, 0, 0, 0, 0], [2, 0, 0, 0, 0]):
        emulation.step(moments=moments)
        assert emulation.nonfinite[1].tolist() == expected
        assert emulation.nonfinite[3].tolist() == [0, 1, 0, 0, 0]
        assert emulation.nonfinite[0].tolist() == [0] * 5
        assert emulation.chains["active"].tolist() == [1, 0, 0, 2]
    assert emulation.chains["step"].tolist() == [AGES[0] + 2, AGES[1] + 1, AGES[2], AGES[3] + 2]


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_large_finite_weights_are_no_alarm(dtype):
    own, grad = member((1000,), dtype, w0=None)
    own.w.fill_(torch.finfo(dtype).max / 4)
    still = setting(lr=0.0, weight_decay=0.0, localization=0.0)
    emulation = both(Rule.sgld, [own], [grad], [[still]], [1], [BORN])
    assert emulation.nonfinite.sum() == 0
    assert emulation.chains["active"].tolist() == [1]


def test_a_step_of_nothing_counts_as_one():
    own, grad = member((0,), w0=None)
    for moments in (False, True):
        both(Rule.sgld, [own], [grad], [[setting()]], [1], [BORN], moments=moments)


@pytest.mark.parametrize("dim", [1, 7, 1000, 65536])
@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("rule", [Rule.sgld, Rule.adam, Rule.sgnht], ids=lambda rule: rule.name)
def test_sketches(rule, dtype, dim):
    arguments = one((40_000,), dtype, rule=rule, first=9)
    both(*arguments, sketch=Sketch(dim, 2**64 - 1), moments=False, n=2)


@pytest.mark.parametrize("moments", [False, True])
def test_scratch_memory_serves_steps_of_all_kinds_in_turn(moments):
    """With the largest that any of them asks for, none of them disturbs the next."""
    rule, members, grads, settings, keys, steps = one((70_000,), rule=Rule.sgnht)
    twins = copy_of(members)
    steady = Emulation(rule, table_of(members, grads), settings, keys, steps)
    changing = Emulation(rule, table_of(twins, grads), settings, keys, steps)
    changing.step(moments=True, sketch=(500, 1))
    steady.step(moments=moments)
    for i in range(4):
        steady.step(moments=moments)
        changing.step(moments=i % 2 == 0, sketch=(50, 1) if i == 1 else None)
        same_state(members, twins)
        assert np.array_equal(steady.chains, changing.chains)
