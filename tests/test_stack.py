"""A stack of chains takes the steps of single samplers, bit for bit."""

import functools
import io

import numpy as np
import pytest
import torch

from fastllc import SGLD, chain_key
from fastllc.samplers.stack import Stack, blueprint
from helpers import LOW, OWN, SAMPLERS, draw, leaf, same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(5, 7), (11,), ()]
CHAINS = 4
ROWS = [1, 0, 1, 1]
KEYS = [chain_key(3, chain) for chain in range(CHAINS)]
SETTINGS = [
    {"lr": 10.0**-c, "nbeta": 5.0 + c, "localization": 2.0 * c, "weight_decay": 0.1 * c}
    for c in range(1, CHAINS + 1)
]


def gradients(step, dtype=torch.float32):
    return [draw((CHAINS, *shape), dtype, seed=100 * step + i) for i, shape in enumerate(SHAPES)]


class Both:
    """The same chains as a stack and as samplers of their own."""

    def __init__(self, kind, dtype=torch.float32, **how):
        anchors = [draw((2, *shape), dtype, seed=i) for i, shape in enumerate(SHAPES)]
        self.params = [[leaf(w0[row]) for w0 in anchors] for row in ROWS]
        self.samplers = [
            kind(params, seed=key, **{**setting, **how})
            for params, key, setting in zip(self.params, KEYS, SETTINGS, strict=True)
        ]
        plans = [
            blueprint(kind([leaf(w) for w in params], seed=0, **{**setting, **how}))
            for params, setting in zip(self.params, SETTINGS, strict=True)
        ]
        self.dtype = dtype
        self.weights = [w0[ROWS].clone() for w0 in anchors]
        self.plans, self.anchors = plans, anchors
        self.stack = Stack(plans, self.weights, anchors, ROWS, KEYS)
        self.steps = 0

    def step(self, active=(True,) * CHAINS, without=()):
        grads = gradients(self.steps, self.dtype)
        for i in without:
            grads[i] = None
        finite = self.stack.step(grads, self.steps, np.array(active))
        for chain, (params, sampler) in enumerate(zip(self.params, self.samplers, strict=True)):
            if active[chain]:
                for p, grad in zip(params, grads, strict=True):
                    p.grad = None if grad is None else grad[chain].clone()
                sampler.step()
        self.steps += 1
        return finite

    def check(self):
        for chain, params in enumerate(self.params):
            for p, stacked in zip(params, self.weights, strict=True):
                assert same_bits(p, stacked[chain])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *LOW])
def test_chains_are_those_of_single_samplers(kind, dtype):
    both = Both(kind, dtype)
    for _ in range(5):
        assert both.step().all()
        both.check()
    assert not same_bits(both.weights[0][0], both.anchors[0][1])


def test_masks_boxes_and_metrics(kind):
    mask = [draw(SHAPES[0], seed=9) > 0, None, torch.tensor(True)]
    both = Both(kind, mask=mask, bounding_box_size=0.3, save_metrics=True)
    for _ in range(4):
        both.step()
        both.check()
        found = both.stack.metrics()
        for chain, sampler in enumerate(both.samplers):
            for name, value in sampler.get_metrics()._asdict().items():
                assert getattr(found, name)[chain].item() == value.item(), name


def test_groups_have_settings_of_their_own(kind):
    def grouped(params, lr, **how):
        groups = [{"params": params[:1], "lr": lr / 3}, {"params": params[1:], "weight_decay": 0.5}]
        return kind(groups, lr=lr, **how)

    both = Both(grouped, save_metrics=True)
    for _ in range(3):
        both.step()
        both.check()
    found = both.stack.metrics()
    for chain, sampler in enumerate(both.samplers):
        for name, value in sampler.get_metrics()._asdict().items():
            assert getattr(found, name)[chain].item() == pytest.approx(value.item(), rel=1e-6), name


def test_chains_that_are_not_active_stay(kind):
    both = Both(kind)
    both.step()
    kept = [w[2].clone() for w in both.weights]
    for _ in range(3):
        assert both.step(active=(True, True, False, True)).all()
    for w, before in zip(both.weights, kept, strict=True):
        assert same_bits(w[2], before)
    both.check()  # the others as if nothing had happened


def test_parameters_without_a_gradient_stay_and_are_born_when_they_move(kind):
    both = Both(kind)
    for without in ([1], [1], [], [0], []):
        both.step(without=without)
        both.check()


def test_chains_whose_weights_are_not_finite_are_told(kind):
    both = Both(kind)
    both.step()
    grads = gradients(1)
    grads[1][2, 3] = torch.inf
    finite = both.stack.step(grads, 1, np.ones(CHAINS, bool))
    assert finite.tolist() == [True, True, False, True]
    # Not active, nothing is told of it.
    finite = both.stack.step(gradients(2), 2, np.array([True, True, False, True]))
    assert finite.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stack_goes_on_from_its_state(kind, dtype):
    both = Both(kind, dtype)
    for _ in range(3):
        both.step()
    saved = both.stack.state_dict()
    again = Both(kind, dtype)
    for w, kept in zip(again.weights, both.weights, strict=True):
        w.copy_(kept)
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    buffer.seek(0)
    again.stack.load_state_dict(torch.load(buffer, weights_only=True))
    again.steps = 3
    for _ in range(3):
        both.step()
        again.stack.step(gradients(again.steps, dtype), again.steps, np.ones(CHAINS, bool))
        again.steps += 1
    for w, other in zip(both.weights, again.weights, strict=True):
        assert same_bits(w, other)
    both.check()


def test_state_that_is_not_loaded_matters():
    """Else the test before could not fail."""
    kind = functools.partial(SAMPLERS[3], **OWN[SAMPLERS[3]])
    both = Both(kind)
    for _ in range(3):
        both.step()
    again = Both(kind)
    for w, kept in zip(again.weights, both.weights, strict=True):
        w.copy_(kept)
    both.step()
    again.stack.step(gradients(3), 3, np.ones(CHAINS, bool))
    assert not same_bits(both.weights[0], again.weights[0])


def test_a_blueprint_is_what_the_sampler_says():
    params = [torch.zeros(3), torch.zeros(2)]
    mask = torch.tensor([True, False, True])
    plan = blueprint(SGLD(params, lr=0.5, mask=[mask, None], localization=0.0))
    assert plan.kind is SGLD
    assert plan.groups == [0, 0]
    assert torch.equal(plan.masks[0], mask)
    assert plan.masks[1] is None
    assert plan.anchored == [False, False]
    assert not plan.saving
    assert blueprint(SGLD(params, lr=0.5, localization=1.0)).anchored == [True, True]
    assert blueprint(SGLD(params, lr=0.5, localization=0.0, save_metrics=True)).anchored[0]
