"""Tensors that stand in for a module's own."""

from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fastllc.engine.functional import Slots
from zoo import CASES, Tied, case


def others(model):
    return {
        name: torch.rand_like(t) if t.is_floating_point() else t.clone()
        for name, t in (*model.named_parameters(), *model.named_buffers())
    }


class First(nn.Module):
    def __init__(self, model, inputs):
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self):
        found = self.model(self.inputs)
        found = getattr(found, "logits", found)
        found = found["logits"] if isinstance(found, dict) else found
        return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", CASES)
def test_a_filled_module_computes_as_a_functional_call(name):
    made = case(name)
    inputs = made.data[0] if isinstance(made.data, tuple) else next(iter(made.data))["inputs"]
    model = First(made.model, inputs)
    before, tensors = model(), others(model)
    wanted = functional_call(model, tensors, ())
    with Slots(model).filled(tensors):
        found = model()
    assert torch.equal(found, wanted)
    assert not torch.equal(found, before)
    assert torch.equal(model(), before)


def test_modules_have_their_own_back_after_errors_and_inside_of_each_other():
    model = Tied()
    own = model.embed.weight
    slots = Slots(model)
    one, two = (torch.full((7, 6), value) for value in (1.0, 2.0))
    with suppress(ZeroDivisionError), slots.filled({"embed.weight": one}):
        assert model.readout.weight is model.embed.weight is one
        with slots.filled({"readout.weight": two}):
            assert model.readout.weight is model.embed.weight is two
        assert model.readout.weight is model.embed.weight is one
        raise ZeroDivisionError
    assert model.readout.weight is model.embed.weight is own


def test_an_unknown_name_changes_nothing():
    model = nn.Linear(2, 1)
    own = model.weight
    with pytest.raises(KeyError), Slots(model).filled({"weight": own * 2, "wait": own}):
        pass
    assert model.weight is own
    assert isinstance(model.weight, nn.Parameter)


def test_a_module_under_two_names_is_filled_by_either():
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": shared, "b": shared})
    own = shared.weight
    for name in ("a.weight", "b.weight"):
        with Slots(model).filled({name: torch.ones(2, 2)}):
            assert shared.weight.sum() == 4
        assert shared.weight is own
