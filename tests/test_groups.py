"""Parameters, their groups and their gradients."""

import copy
import itertools

import pytest
import torch

from fastllc._core import Rule
from helpers import (
    DTYPES,
    check_step,
    draw,
    lay_out,
    leaf,
    make,
    same_bits,
)


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_missing_gradients_leave_the_noise_of_the_others(kind, missing):
    params = make(300, (), 5)
    grads = [p.grad for p in params]
    for i in missing:
        params[i].grad = None
    sampler = kind(params, seed=3)
    for _ in range(3):
        check_step(sampler)
        missing = [(i + 1) % 3 for i in missing]  # others next time
        for i, param in enumerate(params):
            param.grad = None if i in missing else grads[i]
    assert sampler.param_groups[0]["step"] == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_group_without_gradients_stays_and_the_others_move(kind, frozen, dtype):
    """As with an unused or frozen layer that has a group of its own."""
    params = make(30, 4)
    params.insert(1, make(9, dtype=dtype)[0])
    sampler = kind([{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(params)], seed=3)
    params[frozen].grad = None
    for _ in range(2):
        check_step(sampler)


def test_groups_share_one_count_of_parameters(kind):
    """How parameters are grouped changes nothing, nor does the dtype they stand beside."""
    together = make(40, 3, (2, 2))
    apart = make(40, 3, (2, 2))
    one = kind(together, seed=8)
    three = kind([{"params": [p]} for p in apart], seed=8)
    for _ in range(3):
        one.step()
        three.step()
    for a, b in zip(together, apart, strict=True):
        assert same_bits(a, b)
    if one.rule == Rule.sgnht:
        return  # one thermostat feels them all
    # float64 between them, and a middle parameter of another type
    mixed = make(40, 3, (2, 2))
    mixed[1] = leaf(draw(3, torch.float64))
    mixed[1].grad = torch.zeros(3, dtype=torch.float64)
    sampler = kind(mixed, seed=8)
    for _ in range(3):
        sampler.step()
    assert same_bits(mixed[0], together[0])
    assert same_bits(mixed[2], together[2])


def test_a_group_added_later_is_anchored_there_and_continues_the_ids(kind):
    a, b, c = make(30, 4, (2, 3))
    sampler = kind([a, b], localization=3.0, seed=6)
    for _ in range(2):
        sampler.step()
    c.data += 1.0
    anchor = c.detach().clone()
    sampler.add_param_group({"params": c, "lr": 0.2})
    c.data += 1.0
    assert torch.equal(sampler.state[c]["w0"], anchor)
    assert sampler.param_groups[1]["seed"] == 6
    assert sampler.param_groups[1]["localization"] == 3.0
    for _ in range(2):
        check_step(sampler)


def test_a_second_sampler_over_the_same_group_dicts_starts_anew(kind):
    """As one would write it for several chains: each with its own seed, from step 0."""
    a, b = make(50, 50)
    groups = [{"params": [a]}, {"params": [b], "lr": 0.1}]
    first = kind(groups, seed=1)
    for _ in range(3):
        first.step()
    second = kind(groups, seed=2, nbeta=5.0)
    assert second.param_groups[0]["seed"] == 2
    assert second.param_groups[0]["step"] == 0
    assert second.param_groups[0]["nbeta"] == 5.0
    assert second.param_groups[1]["lr"] == 0.1
    assert first.param_groups[0]["seed"] == 1


def test_named_parameters(kind):
    model = torch.nn.Linear(3, 2)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    sampler = kind(model.named_parameters(), seed=0)
    assert sampler.param_groups[0]["param_names"] == ["weight", "bias"]
    assert sampler.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.grad = p.grad.clone()
    other = kind(twin.parameters(), seed=0)
    sampler.step()
    other.step()
    assert same_bits(model.weight, twin.weight)
    assert same_bits(model.bias, twin.bias)


def test_views_into_one_flat_buffer_are_parameters_like_any_other(kind):
    flat = draw(1000)
    cuts = [0, 1, 300, 557, 1000]
    pieces = [flat[a:b] for a, b in itertools.pairwise(cuts)]
    for piece in pieces:
        piece.grad = draw(piece.shape, seed=4)
    single = [leaf(p) for p in pieces]
    for p, q in zip(single, pieces, strict=True):
        p.grad = q.grad.clone()
    kind(pieces, seed=0, localization=1.0).step()
    kind(single, seed=0, localization=1.0).step()
    assert same_bits(flat, torch.cat([p.detach() for p in single]))


@pytest.mark.parametrize("offset", [0, 1, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_at_any_byte(kind, dtype, offset):
    """torch.frombuffer gives tensors that are not even aligned to their own size."""
    n, size = 700, dtype.itemsize
    memory = bytearray(n * size + offset)
    odd = torch.frombuffer(memory, dtype=dtype, offset=offset, count=n)
    odd.copy_(draw(n, dtype))
    (even,) = make(n, dtype=dtype)
    odd.grad = even.grad.clone()
    for param in (odd, even):
        sampler = kind([param], seed=1, localization=1.0, weight_decay=0.1, save_metrics=True)
        sampler.step()
        sampler.step()
    assert same_bits(odd, even)


def test_gradients_in_any_layout(kind):
    grad = draw((6, 10))
    results = []
    for layout in ["contiguous", "transposed", "sliced", "offset"]:
        param = leaf(draw((6, 10)))
        param.grad, _ = lay_out(grad, layout)
        kind([param], seed=0).step()
        results.append(param)
    expanded = leaf(draw((6, 10)))
    expanded.grad = torch.ones(1, 1).expand(6, 10)
    ones = leaf(draw((6, 10)))
    ones.grad = torch.ones(6, 10)
    for p in (expanded, ones):
        kind([p], seed=0).step()
    assert all(same_bits(results[0], r) for r in results[1:])
    assert same_bits(expanded, ones)


def test_lazy_negative_gradients_are_resolved(kind):
    whole = torch.complex(draw(9), draw(9, seed=1))
    lazy = whole.conj().imag
    assert lazy.is_neg()
    a, b = leaf(draw(9)), leaf(draw(9))
    a.grad, b.grad = lazy, lazy.clone().resolve_neg()
    for p in (a, b):
        kind([p], seed=0).step()
    assert same_bits(a, b)
    assert torch.equal(whole, torch.complex(draw(9), draw(9, seed=1)))


def test_gradients_are_not_written(kind):
    params = make((30, 30), 5, dtype=torch.float64)
    before = [p.grad.clone() for p in params]
    sampler = kind(params, localization=1.0, save_metrics=True, seed=0)
    versions = [p.grad._version for p in params]
    sampler.step()
    for param, grad, version in zip(params, before, versions, strict=True):
        assert same_bits(param.grad, grad)
        assert param.grad._version == version
