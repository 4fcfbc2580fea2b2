"""Automatic settings against long chains: on a net of known coefficient, and what was learnt."""

import pytest
import torch
from torch import nn

from bench import automatic

pytestmark = pytest.mark.usefixtures("one_thread")


def linear():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(200, 3)
    return model, (x, model(x).detach()), nn.functional.mse_loss


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_both_estimates_of_a_linear_net_are_half_its_weights(monkeypatch):
    monkeypatch.setitem(automatic.NETWORKS, "linear", linear)
    found = automatic.compare("linear", steps=1000, nbeta=1e4)
    assert found.nbeta == 1e4
    assert abs(found.llc - 2) < max(5 * found.sem, 0.1)
    assert abs(found.long - 2) < max(5 * found.long_sem, 0.1)
    assert found.seconds > 0 < found.long_seconds


@pytest.mark.parametrize("name", ["classes of another net", "handwritten digits"])
def test_the_nets_have_learnt_their_classes(name):
    model, (x, labels), _ = automatic.NETWORKS[name]()
    assert (model(x).argmax(1) == labels).float().mean() > 0.97
