"""Masks of a sampler: what is False stays, makes no noise and is in no sum."""

import copy
import math

import pytest
import torch

from fastllc import SGLD, AdamSGLD, DivergenceWarning, RMSpropSGLD, use_reference
from helpers import DTYPES, LOW, check_step, draw, leaf, make, raw, same_bits

# Signs, NaN payloads, infinities and the smallest numbers, all as integers.
ODD_BITS = {
    torch.float32: [0x7FC0_1234, 0x7F80_0001, -0x40_4321, -0x7F_FFFF, 0x7F80_0000, 1],
    torch.float64: [0x7FF8_0000_1234_5678, 0x7FF0_0000_0000_0001, -0x7_FFFF_FFFF_1234, 1],
    torch.bfloat16: [0x7FC1, 0x7F81, -0x3F, -0x7F, 0x7F80, -0x80, 1, -0x8000],
    torch.float16: [0x7E01, 0x7C01, -0x1FF, -0x3FF, 0x7C00, -0x400, 1, -0x8000],
}
INTEGERS = {4: torch.int32, 8: torch.int64, 2: torch.int16}


@pytest.mark.parametrize("rounding", ["exact", "stochastic"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_masked_elements_keep_their_bits(kind, dtype, share, rounding):
    odd = torch.tensor(ODD_BITS[dtype], dtype=INTEGERS[dtype.itemsize]).view(dtype)
    mask = torch.rand(61, 17, generator=torch.Generator().manual_seed(0)) < share
    values = odd.repeat(61 * 17)[: 61 * 17].view(61, 17)
    param = leaf(torch.where(mask, draw((61, 17), dtype), values))
    param.grad = torch.where(mask, draw((61, 17), dtype, seed=1), math.nan)
    before = param.detach().clone()
    options = {"bounding_box_size": 0.3, "weight_decay": 0.1, "localization": 1.0}
    sampler = kind([param], mask=mask, rounding=rounding, save_metrics=True, seed=3, **options)
    for _ in range(3):
        sampler.step()  # without a warning: what is masked does not diverge
        assert raw(param[~mask]) == raw(before[~mask])
        assert not same_bits(param[mask], before[mask])
        metrics = sampler.get_metrics()
        assert metrics.nonfinite == 0
        assert all(x.isfinite() for x in metrics)
    assert torch.equal(param[mask], param[mask]), "NaN came in"


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_the_free_elements_move_as_without_a_mask(kind, dtype):
    """Their noise is that of their place; only SGNHT's thermostat knows how many they are."""
    (masked,), (free,) = make((40, 9), dtype=dtype), make((40, 9), dtype=dtype)
    mask = draw((40, 9)) > 0
    for param, options in ((masked, {"mask": mask}), (free, {})):
        sampler = kind([param], localization=1.0, seed=5, **options)
        sampler.step()
    assert same_bits(masked[mask], free[mask])
    assert same_bits(masked[~mask], make((40, 9), dtype=dtype)[0][~mask])


def test_metrics_are_those_of_the_free_elements_alone(kind):
    mask = draw((50, 7)) > 0.5
    (param,) = make((50, 7), dtype=torch.float64)
    sampler = kind([param], mask=mask, localization=2.0, save_metrics=True, seed=1)
    sampler.step()
    before = param.detach().clone()
    sampler.step()
    metrics = sampler.get_metrics()
    w, g, w0 = before[mask], param.grad[mask], sampler.state[param]["w0"][mask]
    assert metrics.weight_norm.item() == pytest.approx(w.norm().item(), rel=1e-12)
    assert metrics.distance.item() == pytest.approx((w - w0).norm().item(), rel=1e-12)
    assert metrics.virial.item() == pytest.approx(((w - w0) @ g).item(), rel=1e-10)


def test_a_mask_of_nothing_stops_everything(kind):
    params = make((30, 3), 4)
    before = [p.detach().clone() for p in params]
    nothing = [torch.zeros((), dtype=torch.bool)] * 2
    sampler = kind(params, mask=nothing, save_metrics=True, seed=1)
    for _ in range(2):
        sampler.step()
    assert all(same_bits(p, b) for p, b in zip(params, before, strict=True))
    assert all(value == 0 for value in sampler.get_metrics())
    assert getattr(sampler, "thermostat", 0.2) == 0.2


@pytest.mark.parametrize(
    "shape", [(5, 1), (1, 7), (7,), (), (5, 7), (1, 1)], ids=["rows", "columns", *"abcd"]
)
def test_masks_broadcast(kind, shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.6
    (a,), (b,) = make((5, 7)), make((5, 7))
    one, other = kind([a], mask=mask, seed=1), kind([b], mask=[mask.expand(5, 7)], seed=1)
    for _ in range(2):
        check_step(one)
        other.step()
    assert same_bits(a, b)


def test_masks_by_name(kind):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    for p in model.parameters():
        p.grad = draw(p.shape, seed=2)
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.grad = p.grad.clone()
    row = torch.tensor([[True], [False], [True]])
    named = kind(model.named_parameters(), mask={"0.weight": row, "1.bias": row[0]}, seed=4)
    listed = kind(twin.parameters(), mask=[row, None, None, row[0]], seed=4)
    start = model[0].weight.detach().clone()
    for _ in range(2):
        named.step()
        listed.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert same_bits(p, q)
    assert same_bits(model[0].weight[1], start[1])
    assert not same_bits(model[0].weight[0], start[0])


def test_masks_by_name_are_shared_out_to_the_groups(kind):
    """Each takes those of its own parameters, also one that is added later."""
    params = [[(name, p)] for name, p in zip("abc", make((4, 3), 5, 6), strict=True)]
    twins = [[(name, p)] for name, p in zip("abc", make((4, 3), 5, 6), strict=True)]
    masks = {"a": draw((4, 1)) > 0, "c": draw(6) > 0}
    groups = [{"params": own, "lr": 0.1 * (i + 1)} for i, own in enumerate(params)]
    sampler = kind(groups, mask=masks, seed=3)
    own = [
        {"params": twin, "lr": 0.1 * (i + 1), "mask": [masks.get(twin[0][0])]}
        for i, twin in enumerate(twins)
    ]
    other = kind(own, seed=3)
    sampler.add_param_group({"params": [("d", make(7)[0])]})
    other.add_param_group({"params": [("d", make(7)[0])]})
    other.load_state_dict(copy.deepcopy(other.state_dict()))
    for _ in range(2):
        check_step(sampler)
        check_step(other)
    for p, q in zip(params, twins, strict=True):
        assert same_bits(p[0][1], q[0][1])
    assert [group["mask"][0] is None for group in sampler.param_groups] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("lost", ["deepcopy", "older state"])
def test_masks_by_name_return_where_a_state_lacks_them(kind, lost):
    params = dict(zip("ab", make((4, 3), 5), strict=True))
    sampler = kind([{"params": [item]} for item in params.items()], mask={"b": draw(5) > 0}, seed=3)
    state = copy.deepcopy(sampler.state_dict())
    for group in state["param_groups"]:
        del group["mask"]
    if lost == "deepcopy":
        grads = [p.grad for p in params.values()]
        sampler = copy.deepcopy(sampler)
        params = dict(zip("ab", (g["params"][0] for g in sampler.param_groups), strict=True))
        for p, grad in zip(params.values(), grads, strict=True):
            p.grad = grad
    sampler.load_state_dict(state)
    before = params["b"].detach().clone()
    check_step(sampler)
    assert same_bits(params["b"][draw(5) <= 0], before[draw(5) <= 0])
    assert not same_bits(params["b"], before)


def test_masks_by_names_of_no_group_are_refused(kind):
    groups = [{"params": [("a", make(3)[0])]}, {"params": [("b", make(4)[0])]}]
    yes = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"mask must name parameters, got \['c', 'd'\]"):
        kind(groups, mask={"d": yes, "a": yes, "c": yes})
    groups[1]["mask"] = {"a": yes}  # a group's own are for its own parameters alone
    with pytest.raises(ValueError, match=r"mask must name parameters, got \['a'\]"):
        kind(groups)
    with pytest.raises(ValueError, match="mask by name needs named parameters"):
        kind([{"params": make(3)}, {"params": make(4)}], mask={"a": yes})


def test_masks_are_copied_when_given_and_may_be_changed_in_the_group(kind):
    mask, (param,) = torch.ones(30, dtype=torch.bool), make(30)
    sampler = kind([param], mask=mask, seed=0)
    sampler.step()
    mask.fill_(False)  # the caller's own
    before = param.detach().clone()
    sampler.step()
    assert not torch.equal(param, before)
    for change in range(4):
        group = sampler.param_groups[0]
        if change == 0:
            group["mask"] = [draw(30, seed=change) > 0]
        elif change == 1:
            group["mask"][0] = draw(30, seed=change) > 0
        elif change == 2:
            group["mask"][0].logical_not_()
        else:
            group["mask"] = None
        for _ in range(2):
            check_step(sampler)


def test_masks_in_a_state_dict(kind):
    (a,), (b,) = make(30), make(30)
    source = kind([a], mask=draw(30) > 0, seed=0)
    source.step()
    target = kind([b], seed=9)
    target.load_state_dict(source.state_dict())
    b.data.copy_(a)
    mask = target.param_groups[0]["mask"][0]
    assert mask.dtype == torch.bool
    assert mask.data_ptr() != source.param_groups[0]["mask"][0].data_ptr()
    source.step()
    check_step(target)
    assert same_bits(a, b)


def test_a_free_element_that_diverges_is_named():
    (param,) = make(300)
    param.grad[[3, 4]] = math.inf
    mask = torch.arange(300) != 3
    with pytest.warns(DivergenceWarning, match=r"params\[0\] \(1 of 300\)"):
        SGLD([param], mask=mask, seed=0).step()


@pytest.mark.filterwarnings("ignore:no native kernel")
@pytest.mark.parametrize("kind", [RMSpropSGLD, AdamSGLD])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mean_squares_of_weights_that_are_freed_later_start_as_those_of_others(kind, dtype):
    """Also where steps had skipped them, 256 at a time; zero would be a metric of 1 / eps."""
    few = torch.arange(1000) < 10

    def walked():
        param = leaf(draw(1000, dtype))
        sampler = kind([param], mask=few, adapt_steps=2, seed=3)
        for step in range(5):
            if step == 3:
                sampler.param_groups[0]["mask"] = None
            param.grad = draw(1000, dtype, seed=step)
            sampler.step()
        return param, sampler.state[param]["square_avg"]

    found = walked()
    use_reference()
    try:
        expected = walked()
    finally:
        use_reference(False)
    assert (found[1] > 0.5).all()
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))
