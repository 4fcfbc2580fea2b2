"""Samplers of chains on a device: the CPU's steps, without waiting, and what is known of them."""

import copy
import functools
import pickle
import warnings

import pytest
import torch

from fake_device import no_waiting
from fastllc import SGHMC, SGLD, SGNHT, DivergenceWarning, localization_penalty, standard_normal
from fastllc.kernels import Chains, DeviceSegments
from fastllc.samplers import remote
from helpers import LOW, OWN, SAMPLERS, STATE, draw, make, raw

OPTIONS = {"lr": 1e-2, "nbeta": 3.0, "localization": 0.5, "weight_decay": 0.1, "seed": 5}
SHAPES = [(40, 30), (7,), ()]


def new_grads(params, step):
    for i, param in enumerate(params):
        param.grad = draw(param.shape, param.dtype, seed=1000 * step + i)


def pair(kind, dtype=torch.float32, monkeypatch=None, **options):
    """A sampler on the device, and one with the same weights; only the first finds it there."""
    return [
        (params, kind(params, **{**OPTIONS, **OWN[kind], **options}))
        for params in (make(*SHAPES, dtype=dtype) for _ in range(2))
    ]


def everything(params, sampler):
    state = [
        raw(sampler.state[p][name])
        for p in params
        for name in STATE
        if name in sampler.state.get(p, ())
    ]
    return [raw(p) for p in params], state


@pytest.fixture
def on_cpu(monkeypatch):
    """Run a function as if there were no device."""

    def run(function, *args, **kwargs):
        from fastllc import kernels
        from fastllc.kernels import functions
        from fastllc.samplers import metrics

        with monkeypatch.context() as patched:
            for where in (functions, kernels, metrics):
                patched.setattr(where, "on_device", lambda tensor: False)
            return function(*args, **kwargs)

    return run


def walk(params, sampler, steps, start=0):
    for step in range(start, start + steps):
        new_grads(params, step)
        sampler.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *LOW])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_steps_are_those_of_the_cpu(device, on_cpu, kind, dtype):
    (ours, sampler), (theirs, other) = pair(kind, dtype, save_metrics=True, sketch_dim=16)
    walk(ours, sampler, 4)
    on_cpu(walk, theirs, other, 4)
    assert isinstance(sampler._plan.segments, DeviceSegments)
    assert not isinstance(other._plan.segments, DeviceSegments)
    assert everything(ours, sampler) == everything(theirs, other)
    for found, wanted in zip(sampler.get_metrics(), on_cpu(other.get_metrics), strict=True):
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)
    for found, wanted in zip(sampler.get_sketches(), other.get_sketches(), strict=True):
        assert torch.equal(found, wanted)
    if kind is SGNHT:
        assert sampler.thermostat == other.thermostat != 0.2


def test_masks_and_groups(device, on_cpu):
    mask = torch.arange(1200).view(40, 30) % 3 > 0

    def build(params):
        groups = [
            {"params": [params[0]], "mask": [mask]},
            {"params": params[1:], "lr": 1e-3, "bounding_box_size": 0.01, "save_metrics": True},
        ]
        return SGHMC(groups, friction=0.3, **OPTIONS)

    ours, theirs = make(*SHAPES), make(*SHAPES)
    sampler, other = build(ours), build(theirs)
    walk(ours, sampler, 3)
    on_cpu(walk, theirs, other, 3)
    assert everything(ours, sampler) == everything(theirs, other)
    (found,), (wanted,) = sampler.iter_group_metrics(), on_cpu(list, other.iter_group_metrics())
    torch.testing.assert_close(found.noise, wanted.noise, rtol=1e-14, atol=0)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_step_neither_waits_nor_uploads(device, kind):
    (params, sampler), _ = pair(kind, save_metrics=True, sketch_dim=16)
    walk(params, sampler, 2)
    device.forget()
    for step in range(2, 200):
        new_grads(params, step)
        with no_waiting():
            sampler.step()
    assert (device.uploads, device.buffers) == ([], [])
    assert len(device.runs) == 198
    assert len(device.fetched) > 0  # looked at now and then
    with no_waiting():
        sampler.get_metrics()
        sampler.get_sketches()


def test_settings_that_change_are_uploaded(device):
    (params, sampler), _ = pair(SGLD)
    walk(params, sampler, 2)
    device.forget()
    sampler.param_groups[0]["lr"] = 2e-2
    walk(params, sampler, 2, start=2)
    assert device.uploads == ["settings"]
    device.forget()
    new_grads(params, 4)
    sampler.step(noise_generator=torch.Generator().manual_seed(1))
    assert device.uploads == ["key"]


def test_the_thermostat_can_be_set_to_what_it_was_before(device, on_cpu):
    (ours, sampler), (theirs, other) = pair(SGNHT)
    start = float("0.2")
    for params, each, run in ((ours, sampler, lambda f, *a: f(*a)), (theirs, other, on_cpu)):
        run(walk, params, each, 3)
        each.param_groups[0]["thermostat"] = start + 0.0
        run(walk, params, each, 3, 3)
    assert everything(ours, sampler) == everything(theirs, other)
    assert sampler.thermostat == other.thermostat


@pytest.mark.parametrize("way", ["state dict", "pickle", "deepcopy"])
@pytest.mark.parametrize("kind", [SGLD, SGNHT, SGHMC])
def test_runs_go_on(device, on_cpu, kind, way):
    (ours, sampler), (theirs, other) = pair(kind)
    walk(ours, sampler, 3)
    if way == "state dict":
        again = kind(ours, **{**OPTIONS, "seed": 1})
        again.load_state_dict(sampler.state_dict())
    else:
        again = pickle.loads(pickle.dumps(sampler)) if way == "pickle" else copy.deepcopy(sampler)
        ours = again.param_groups[0]["params"]
    walk(ours, again, 3, 3)
    on_cpu(walk, theirs, other, 6)
    assert everything(ours, again) == everything(theirs, other)


def test_tensors_that_join_later(device, on_cpu):
    (ours, sampler), (theirs, other) = pair(SGNHT)

    def join(params, each):
        walk(params, each, 3)
        params[1].grad = None
        each.step()
        params.append(make((5,))[0])
        each.add_param_group({"params": [params[-1]]})
        walk(params, each, 2, 4)

    join(ours, sampler)
    on_cpu(join, theirs, other)
    assert everything(ours, sampler) == everything(theirs, other)
    assert sampler.thermostat == other.thermostat


def record(device, sampler, params):
    new_grads(params, 99)
    device.recording = True
    with no_waiting():
        sampler.step()
    device.recording = False


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_captured_step_is_taken_at_each_replay(device, on_cpu, kind):
    (ours, sampler), (theirs, other) = pair(kind, save_metrics=True)
    walk(ours, sampler, 2)
    device.forget()
    before = everything(ours, sampler)
    record(device, sampler, ours)
    assert everything(ours, sampler) == before
    assert (device.uploads, device.buffers) == ([], [])
    for _ in range(4):
        device.replay()
    on_cpu(walk, theirs, other, 2)
    for _ in range(4):
        new_grads(theirs, 99)
        on_cpu(other.step)
    assert everything(ours, sampler) == everything(theirs, other)
    torch.testing.assert_close(sampler.get_metrics(), on_cpu(other.get_metrics), rtol=1e-14, atol=0)
    saved = sampler.state_dict()
    assert saved["param_groups"][0]["step"] == 6
    device.replay()  # also after the device has been asked
    assert sampler.state_dict()["param_groups"][0]["step"] == 7
    new_grads(theirs, 99)
    on_cpu(other.step)
    for params, each, run in ((ours, sampler, lambda f, *a: f(*a)), (theirs, other, on_cpu)):
        run(walk, params, each, 2, 7)
    assert everything(ours, sampler) == everything(theirs, other)
    assert sampler.state_dict()["param_groups"][0]["step"] == 9


def test_eager_steps_go_on_where_replays_have_come_to(device, on_cpu):
    (ours, sampler), (theirs, other) = pair(SGHMC)
    walk(ours, sampler, 1)
    record(device, sampler, ours)
    device.replay()
    device.forget()
    walk(ours, sampler, 2, 2)
    assert device.uploads == []
    # A tensor that joins is born in the step that the device has come to.
    ours.append(make((5,))[0])
    sampler.add_param_group({"params": [ours[-1]]})
    walk(ours, sampler, 1, 4)
    on_cpu(walk, theirs, other, 1)
    new_grads(theirs, 99)
    on_cpu(other.step)
    on_cpu(walk, theirs, other, 2, 2)
    theirs.append(make((5,))[0])
    other.add_param_group({"params": [theirs[-1]]})
    on_cpu(walk, theirs, other, 1, 4)
    assert everything(ours, sampler) == everything(theirs, other)
    assert sampler.state[ours[-1]]["born"] == 4


def test_state_born_after_replays_knows_its_step(device):
    (params, sampler), _ = pair(SGHMC)
    params[1].grad = None
    sampler.step()
    device.recording = True
    sampler.step()
    device.recording = False
    for _ in range(5):
        device.replay()
    new_grads(params, 1)
    sampler.step()
    assert sampler.state[params[1]]["born"] == 6
    assert sampler.state_dict()["param_groups"][0]["step"] == 7


@pytest.mark.parametrize(
    "prepare",
    [
        lambda sampler: sampler.param_groups[0].update(lr=0.5),
        lambda sampler: sampler.param_groups[0].update(sketch_dim=8),
        lambda sampler: sampler.param_groups[0].update(step=100),
    ],
)
def test_a_step_unlike_the_one_before_cannot_be_captured(device, prepare):
    (params, sampler), _ = pair(SGLD)
    walk(params, sampler, 2)
    prepare(sampler)
    before = everything(params, sampler)
    device.recording = True
    with pytest.raises(RuntimeError, match="take a step with the same arguments before"):
        sampler.step()
    assert everything(params, sampler) == before
    assert not device.graph


def test_a_first_step_cannot_be_captured(device):
    (params, sampler), _ = pair(SGLD)
    new_grads(params, 0)
    device.recording = True
    with pytest.raises(RuntimeError, match="take a step with the same arguments before"):
        sampler.step()


def lose(params, sampler, at, steps):
    for step in range(steps):
        new_grads(params, step)
        if step == at:
            params[0].grad.view(-1)[3] = torch.inf
        with no_waiting():
            sampler.step()


def test_a_lost_chain_stops_and_is_told_of_later(device):
    (params, sampler), _ = pair(SGLD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lose(params, sampler, 3, 10)
    stopped = everything(params, sampler)
    with pytest.warns(DivergenceWarning, match=r"step 3 left NaN .* params\[0\] \(1 of 1200\)"):
        assert sampler.nonfinite_step == 3
    new_grads(params, 10)
    sampler.step()  # and goes on once it has been told of
    assert everything(params, sampler) != stopped
    assert sampler.state_dict()["param_groups"][0]["step"] == 11
    assert Chains.rows(sampler._plan.chain.table)["active"] == 2


@pytest.mark.parametrize("late", [False, True])
def test_a_lost_chain_is_told_of_without_waiting(device, late):
    (params, sampler), _ = pair(SGLD)
    device.late = late
    told = 2 * remote._STEPS_BW_LOOKS + 1  # the first step finds no device yet
    lose(params, sampler, 3, told - 1)
    assert "nonfinite_step" not in sampler.param_groups[0]
    new_grads(params, told)
    if late:  # what is not there yet is asked for again later
        sampler.step()
        assert "nonfinite_step" not in sampler.param_groups[0]
        device.fetched[0].there = True
        walk(params, sampler, remote._STEPS_BW_LOOKS - 1, told)
    with pytest.warns(DivergenceWarning, match="step 3 left NaN"):
        sampler.step()
    assert sampler.param_groups[0]["nonfinite_step"] == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(params, sampler, 300, told)
        assert sampler.nonfinite_step == 3


def test_nothing_is_asked_while_a_graph_is_captured(device):
    (params, sampler), _ = pair(SGLD)
    walk(params, sampler, remote._STEPS_BW_LOOKS - 1)
    device.recording = True
    for _ in range(3):
        sampler.step()
    assert not device.fetched
    assert len(device.graph) == 3


def test_noise_of_an_address(device, on_cpu):
    found = standard_normal(100, seed=1, step=2, param=3, first=4)
    assert device.runs == [(7, "normal")]
    assert torch.equal(found, on_cpu(standard_normal, 100, seed=1, step=2, param=3, first=4))
    assert standard_normal(0, seed=1).shape == (0,)


def test_the_penalty_does_not_wait(device, on_cpu):
    params, anchors = make((40, 30), (7,)), [draw((40, 30), seed=3), draw((7,), seed=4)]
    with no_waiting():
        value = localization_penalty(params, anchors, 0.5)
        grads = torch.autograd.grad(3 * value, params)
    assert [run[1] for run in device.runs] == ["penalty"] * 2
    wanted = on_cpu(localization_penalty, params, anchors, 0.5)
    assert torch.equal(value, wanted)
    for grad, other in zip(grads, on_cpu(torch.autograd.grad, 3 * wanted, params), strict=True):
        torch.testing.assert_close(grad, other)


def test_samplers_on_a_device_are_used_as_others(device):
    params = make(*SHAPES)
    sampler = SGLD(params, **OPTIONS)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(sampler, 0.9)
    for step in range(3):
        new_grads(params, step)
        sampler.step(functools.partial(float, 1.0))
        scheduler.step()
    assert "lr" in repr(sampler)
