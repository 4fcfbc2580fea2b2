"""The loss on a minibatch, and of each sample."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine import losses, run
from fastllc import Observable
from fastllc.engine.objective import Objective
from zoo import Case, N, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = normal(N, 3), tokens(N, high=2)


class Choosy(nn.Module):
    """Goes one way or the other: vmap refuses it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        found = self.layer(x)
        return found if found.sum() > 0 else 2 * found


def one_by_one(model, x, y):
    with torch.no_grad():
        pairs = zip(x.split(1), y.split(1), strict=True)
        return torch.stack([cross_entropy(model(a), b) for a, b in pairs])


@pytest.mark.parametrize("model", [nn.Linear(3, 2), Choosy()], ids=["vmap", "loop"])
def test_losses_of_samples_are_those_of_batches_of_one(model):
    objective = Objective(model, cross_entropy)
    with torch.no_grad():
        found = objective.each(DATA)
    assert torch.allclose(found, one_by_one(model, *DATA), rtol=1e-5)


def test_losses_of_samples_that_the_caller_gives_are_taken_as_they_are():
    """In one call, where the model sees the batch as it is."""
    model = Choosy()
    objective = Objective(model, nn.CrossEntropyLoss(reduction="none"))
    with torch.no_grad():
        expected = cross_entropy(model(DATA[0]), DATA[1], reduction="none")
        assert torch.equal(objective.each(DATA), expected)


def test_an_error_of_the_loss_itself_is_not_hidden():
    objective = Objective(nn.Linear(3, 2), cross_entropy)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        objective.each((normal(N, 4), DATA[1]))


def test_observables_of_models_that_vmap_refuses():
    made = Case(Choosy(), DATA, cross_entropy)
    trace = run(made, observables={"few": Observable(DATA, num_samples=6)})
    assert trace.attrs["engine"] == "inplace"
    group = trace["observables/few"]
    exact = one_by_one(made.model, DATA[0][:6], DATA[1][:6])
    np.testing.assert_allclose(group["init_loss"], exact, rtol=1e-5)
    # The first draw is the state before the first step.
    np.testing.assert_allclose(group["loss"][:, 0], np.tile(exact, (3, 1)), rtol=1e-5)
    assert len(np.unique(group["loss"].values[:, -1, 0])) == 3
    assert np.isfinite(losses(trace)).all()
