"""Gradients that are recorded once and replayed, where a graph is a function that is called."""

import pytest
import torch

from engine import SHORT, arrays, assert_same
from fastllc import Sampling
from fastllc.engine import graphs
from fastllc.engine.graphs import Recorded
from fastllc.engine.job import Job
from fastllc.engine.minibatch import Minibatch
from fastllc.engine.vectorised import VectorisedWalkers
from zoo import case


@pytest.fixture
def recordings(monkeypatch):
    """Counts the graphs and their replays."""
    found = []

    def record(run):
        found.append(0)
        number = len(found) - 1
        outputs = [tensor.clone() for tensor in run()]

        def replay():
            found[number] += 1
            for target, tensor in zip(outputs, run(), strict=True):
                target.copy_(tensor)

        return outputs, replay

    monkeypatch.setattr(graphs, "record", record)
    return found


def minibatch(x, *, stacked=False):
    return Minibatch({"x": x, "name": "a"}, None, stacked)


def test_what_is_recorded_is_computed_anew_from_other_values(recordings):
    calls = []

    def function(minibatches):
        calls.append([each.stacked for each in minibatches])
        return [sum(each.batch["x"].sum() for each in minibatches)]

    recorded = Recorded(function)
    for value in (1.0, 2.0):
        (total,) = recorded([minibatch(torch.full((3,), value)), minibatch(torch.ones(2))])
        assert total == 3 * value + 2
    assert recordings == [2]
    recorded([minibatch(torch.ones(4)), minibatch(torch.ones(2))])  # of another shape
    recorded([minibatch(torch.ones(3), stacked=True), minibatch(torch.ones(2))])
    recorded([minibatch(torch.ones(3)).__class__({"x": torch.ones(3).double()}, None, False)])
    assert recordings == [2, 1, 1, 1]


def test_inputs_are_not_the_callers(recordings):
    recorded = Recorded(lambda minibatches: [minibatches[0].batch["x"]])
    x = torch.ones(3)
    (kept,) = recorded([minibatch(x)])
    recorded([minibatch(2 * x)])
    assert x.tolist() == [1, 1, 1]
    assert kept.tolist() == [2, 2, 2]


def test_what_cannot_be_recorded_is_an_error(monkeypatch):
    def record(run):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "record", record)
    with pytest.raises(ValueError, match=r"capture must be False for this .*not permitted"):
        Recorded(lambda minibatches: [])([minibatch(torch.ones(1))])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_runs_with_recorded_gradients_are_those_without(recordings, monkeypatch, accumulation):
    made = case("mlp")
    settings = SHORT | {
        "engine": "vectorised",
        "batch_size": 5,
        "accumulation": accumulation,
        "save_acceptance": True,
    }
    plain = Sampling(**settings).run(**made.fit)
    walkers = Job.walkers

    def captured(self, box):
        found = walkers(self, box)
        assert isinstance(found, VectorisedWalkers)
        found._recorded = Recorded(found._differentiate)
        return found

    monkeypatch.setattr(Job, "walkers", captured)
    again = Sampling(**settings).run(**made.fit)
    assert_same(again, plain)
    assert recordings == [2 * SHORT["num_draws"]]  # of one shape; twice for the acceptance
    assert arrays(again)


def test_capture_is_for_cuda_devices():
    with pytest.raises(ValueError, match="capture must be False for parameters on cpu, got True"):
        Sampling(**SHORT, capture=True).run(**case("mlp").fit)
