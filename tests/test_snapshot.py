"""A model on loan comes back as it came: memory, bits, gradients, flags, modes, buffers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fastllc.engine.snapshot import preserved
from zoo import CASES, Tied, case


class Net(nn.Module):
    """A frozen layer, a frozen mode, buffers that are written, shared, expanded or not saved."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.quiet = nn.Dropout(0.5).eval()
        self.frozen = nn.Linear(4, 2).requires_grad_(False)
        self.register_buffer("wide", torch.arange(3.0).expand(4, 3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.twin = self.norm

    def forward(self, x):
        return self.frozen(self.quiet(self.twin(self.first(x))))


def bits(model):
    """Everything that must come back, memory addresses included."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return (
        {n: (id(t), t.data_ptr(), t.detach().clone().numpy().tobytes()) for n, t in tensors},
        {n: (p.requires_grad, id(p.grad)) for n, p in model.named_parameters()},
        [p.grad.tolist() for p in model.parameters() if p.grad is not None],
        [m.training for m in model.modules()],
    )


def disturb(model, how):
    if how == "weights":
        with torch.no_grad():
            for p in (*model.first.parameters(), *model.norm.parameters()):
                p.mul_(2).add_(1)
    elif how == "buffers":
        model.norm.running_mean.add_(1)
        model.norm.num_batches_tracked += 3
        model.scratch = torch.ones(5)  # another tensor in its place
    elif how == "modes":
        model.eval()
        model.quiet.train()
    elif how == "flags":
        model.requires_grad_(True)
    elif how == "gradients":
        for p in model.parameters():
            p.grad = torch.ones_like(p)
    elif how == "pass":
        model.train()(torch.randn(5, 3)).sum().backward()


HOWS = ("weights", "buffers", "modes", "flags", "gradients", "pass")


def trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
        model(torch.randn(5, 3)).sum().backward()
        with torch.no_grad():
            model.first.bias[0] = -0.0
    return model


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@given(hows=st.lists(st.sampled_from([*HOWS, "load"]), max_size=6))
def test_the_model_comes_back_whatever_happens_to_it(error, hows):
    model, other = trained(), trained().state_dict()
    before = bits(model)
    try:
        with preserved(model) as load:
            for how in hows:
                load(other) if how == "load" else disturb(model, how)
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    assert bits(model) == before


@given(hows=st.lists(st.sampled_from(HOWS), max_size=6))
def test_load_goes_back_to_the_start(hows):
    model, other = trained(), Net().state_dict()
    with preserved(model) as load:
        for how in hows:
            disturb(model, how)
        load(other)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, other[name]), name
        assert model.scratch.tolist() == [0.0, 0.0]
        assert model.training
        assert not model.quiet.training
        assert all(p.grad is None for p in model.parameters())
        load({})
        for name, tensor in trained().state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", CASES)
def test_weights_that_are_loaded_are_not_written(name):
    model, other = case(name).model, case(name, seed=1).model
    with torch.no_grad():
        kept = {n: t.clone() for n, t in other.state_dict().items()}
        with preserved(model) as load:
            load(other.state_dict())
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(1)
            model.train()
    for n, t in other.state_dict().items():
        assert torch.equal(t, kept[n]), n


def test_gradients_inside_are_not_the_caller_s():
    model = trained()
    grad = model.first.weight.grad
    kept = grad.clone()
    with preserved(model):
        assert model.first.weight.grad is None
        model(torch.randn(5, 3)).sum().backward()
    assert model.first.weight.grad is grad
    assert torch.equal(grad, kept)


def test_tied_weights_stay_tied():
    model = Tied()
    with preserved(model) as load, torch.no_grad():
        load({"embed.weight": torch.ones(7, 6)})
        model.embed.weight.mul_(2)
        assert model.readout.weight is model.embed.weight
        assert torch.equal(model.readout.weight, 2 * torch.ones(7, 6))
    assert model.readout.weight is model.embed.weight
    assert not torch.equal(model.readout.weight, 2 * torch.ones(7, 6))
