"""Segments and chains on a device: what is uploaded, launched, captured and left there."""

import numpy as np
import pytest
import torch

from chains import BORN, K, draw_members, setting
from fake_device import no_waiting
from fastllc._core import Rule
from fastllc.kernels import Chains, DeviceSegments, Segments, Sketch, streams
from helpers import raw

CPU = torch.device("cpu")
SETTINGS = [[setting(lr=1e-2 * (1 + k)) for k in range(K)] for _ in range(2)]
KEYS = list(range(2**63, 2**63 + K))  # the upper half of the keys too


def both(rule, dtype=torch.float32, rows=None):
    """Segments on the device and on the CPU, over tensors with the same values."""
    ours, grads = draw_members(rule, dtype)
    theirs, _ = draw_members(rule, dtype)
    if rows is None:
        chains = Chains(K, CPU)
    else:
        ours, theirs = (
            [m._replace(w0=torch.stack([m.w[0], m.w[1] + 1])) for m in members]
            for members in (ours, theirs)
        )
        chains = Chains(K, CPU, rows)
    device = DeviceSegments(ours, rule, chains, chains=K, anchors=rows)
    return device, Segments(theirs, rule, chains=K, anchors=rows), ours, theirs, grads


def bits(members):
    return [
        raw(t)
        for m in members
        for t in (m.w, m.momentum, m.square_avg, m.residual)
        if t is not None
    ]


@pytest.mark.parametrize("rule", Rule)
def test_steps_are_those_of_the_cpu(device, rule):
    segments, other, ours, theirs, grads = both(rule)
    thermostats = np.linspace(0.1, 0.4, K)
    now = thermostats
    for step in range(BORN, BORN + 3):
        for each in (segments, other):
            each.bind(grads)
        segments.step(SETTINGS, KEYS, [step] * K, thermostats=thermostats, moments=True)
        other.step(SETTINGS, KEYS, [step] * K, thermostats=now, moments=True)
        now = np.array(other.thermostats)
        assert bits(ours) == bits(theirs)
        assert (segments.moments.numpy() == other.sums.moments).all()
        assert (segments.nonfinite.numpy() == other.sums.nonfinite).all()
    table = Chains.rows(segments.rows.table)
    assert table["step"].tolist() == [BORN + 3] * K
    assert table["thermostat"].tolist() == other.thermostats


def test_anchors_by_chain(device):
    segments, other, ours, theirs, grads = both(Rule.sgld, rows=[0, 1, 1, 0])
    for each in (segments, other):
        each.bind(grads)
        each.step(SETTINGS, KEYS, [0] * K)
    assert bits(ours) == bits(theirs)


def test_only_what_has_changed_is_uploaded(device):
    segments, *_, grads = both(Rule.sgnht)

    def uploads(settings=SETTINGS, keys=KEYS, steps=(0,) * K, **others):
        device.forget()
        segments.bind(grads)
        with no_waiting():
            segments.step(settings, keys, list(steps), **others)
        return device.uploads

    one = np.ones(K)
    assert uploads(thermostats=one) == ["settings", "key", "step", "thermostat"]
    assert uploads(steps=[1] * K, thermostats=one) == []
    assert uploads(steps=[2] * K, thermostats=one) == []
    assert uploads(steps=[7] * K, thermostats=one) == ["step"]
    assert uploads(steps=[8] * K, keys=KEYS[::-1], thermostats=one) == ["key"]
    assert uploads(steps=[9] * K, keys=KEYS[::-1], thermostats=one.copy()) == ["thermostat"]
    assert uploads(SETTINGS[::-1], KEYS[::-1], [10] * K) == []  # equal to those before
    changed = [row[::-1] for row in SETTINGS]
    assert uploads(changed, KEYS[::-1], [11] * K) == ["settings"]
    assert uploads(changed, KEYS[::-1], np.full(K, 12)) == []
    active = np.array([True, True, False, True])
    assert uploads(changed, KEYS[::-1], [13] * K, active=active) == ["which chains move"]
    assert uploads(changed, KEYS[::-1], [14] * K, active=active.copy()) == []
    assert Chains.rows(segments.rows.table)["active"].tolist() == [1, 1, 0, 1]


def test_chains_that_stand_still_are_left_alone(device):
    segments, _, ours, _, grads = both(Rule.sghmc)
    active = np.array([True, False, True, False])
    before = [m.w.clone() for m in ours]
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [5] * K, active=active, moments=True)
    for member, w in zip(ours, before, strict=True):
        assert (member.w[~torch.tensor(active)] == w[[1, 3]]).all()
        assert not member.w.numel() or (member.w[torch.tensor(active)] != w[[0, 2]]).any()
    assert Chains.rows(segments.rows.table)["step"].tolist() == [6, 5, 6, 5]
    assert (segments.moments[[1, 3]] == 0).all()


def test_the_device_stops_what_is_lost(device):
    segments, *_, grads = both(Rule.sgld)
    grads[0][2].view(-1)[0] = torch.nan
    for step in range(3):
        segments.bind(grads)
        segments.step(SETTINGS, KEYS, [step] * K)
    table = Chains.rows(segments.rows.table)
    assert table["active"].tolist() == [1, 1, 0, 1]
    assert table["step"].tolist() == [3, 3, 1, 3]
    assert segments.nonfinite[:, 0].tolist() == [0, 0, 1, 0]
    device.forget()
    segments.rows.activate(2, [3] * K)
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [3] * K)
    assert device.uploads == ["active", "step"]
    assert Chains.rows(segments.rows.table)["active"].tolist() == [2] * K


def test_room_is_made_once_for_what_is_asked(device):
    segments, *_, grads = both(Rule.sgld)
    rooms = []
    for step, (moments, dim) in enumerate(
        [(False, 0), (True, 0), (True, 0), (True, 8), (False, 0)]
    ):
        device.forget()
        segments.bind(grads)
        sketch = Sketch(dim, 3) if dim else None
        segments.step(SETTINGS, KEYS, [step] * K, moments=moments, sketch=sketch)
        rooms.append(len(device.buffers))
        *_, found_moments, found_sketches, found_dim, seed, workspace = device.runs[-1]
        assert (found_moments != 0, found_sketches != 0) == (moments, dim > 0)
        assert (found_dim, seed) == (dim, 3 if dim else 0)
        assert workspace
    assert rooms == [1, 2, 0, 2, 1]


def test_steps_are_launched_on_the_current_stream(device):
    segments, *_, grads = both(Rule.sgld)
    for step, stream in enumerate([7, 7, 8, 8]):
        device.stream = stream
        device.held.clear()
        segments.bind(grads)
        segments.step(SETTINGS, KEYS, [step] * K)
        assert device.runs[-1][0] == stream
        # Tables are kept for a stream that they were not made on.
        assert len(device.held) == (4 if step == 2 else 0)


def test_captured_steps_are_taken_at_replays(device):
    segments, other, ours, theirs, grads = both(Rule.sghmc)
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [0] * K)
    device.forget()
    device.recording = True
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [1] * K)
    device.recording = False
    assert (device.uploads, device.buffers) == ([], [])
    for _ in range(3):
        device.replay()
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [1] * K)  # as far as the host knows: nothing is uploaded
    assert device.uploads == []
    for step in range(5):
        other.bind(grads)
        other.step(SETTINGS, KEYS, [step] * K)
    assert bits(ours) == bits(theirs)
    assert segments.rows.captured


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"settings": [row[::-1] for row in SETTINGS]}, "settings"),
        ({"keys": KEYS[::-1]}, "key"),
        ({"steps": [5] * K}, "step"),
        ({"thermostats": np.zeros(K)}, "thermostat"),
        ({"active": np.array([True, False, True, True])}, "which chains move"),
        ({"moments": True}, "save_metrics or sketch_dim"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(device, change, what):
    segments, _, ours, _, grads = both(Rule.sgld)
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [0] * K)
    before = bits(ours)
    device.recording = True
    segments.bind(grads)
    arguments = {"settings": SETTINGS, "keys": KEYS, "steps": [1] * K, **change}
    with pytest.raises(RuntimeError, match=f"must be like the one before it.*{what}"):
        segments.step(**arguments)
    assert (bits(ours), len(device.graph)) == (before, 0)


def test_gradients_are_bound_before_each_step(device):
    segments, *_, grads = both(Rule.sgld)
    segments.bind(grads)
    segments.step(SETTINGS, KEYS, [0] * K)
    with pytest.raises(RuntimeError, match="call bind before each step"):
        segments.step(SETTINGS, KEYS, [1] * K)


def test_values_are_sent(device):
    found = streams.send(np.arange(3.0), CPU)
    assert found.tolist() == [0, 1, 2]
