"""What is known of chains that nobody waits for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastllc.engine import watch as module
from fastllc.engine.record import Fates
from fastllc.engine.watch import Watch


@given(
    lost=st.lists(st.none() | st.integers(0, 249), min_size=1, max_size=4),
    start=st.integers(0, 5),
    again=st.booleans(),
)
def test_the_step_in_which_a_chain_was_lost_is_exact(lost, start, again):
    fates = Fates.start(len(lost))
    watch = Watch(fates, start)
    for step in range(250):
        finite = torch.tensor([at is None or step < at or (again and step > at) for at in lost])
        watch.see(finite)
        watch.see(torch.ones(len(lost), dtype=torch.bool))
        watch.count()
        assert watch.alive.tolist() == [at is None or step < at for at in lost]
    watch.settle()
    assert fates.diverged_at.tolist() == [-1 if at is None else start + at for at in lost]
    assert fates.active.tolist() == [at is None for at in lost]


def test_it_tells_when_what_was_asked_has_come(monkeypatch):
    asked = []

    class Late:
        def __init__(self, tensors):
            self.tensors = [tensor.clone() for tensor in tensors]
            self.there = False
            asked.append(self)

        def arrived(self):
            return self.there

        def wait(self):
            return self.tensors

    monkeypatch.setattr(module, "Fetched", Late)
    fates = Fates.start(2)
    watch = Watch(fates, start=0)
    for step in range(130):
        watch.see(torch.tensor([True, step < 7]))
        watch.count()
    assert len(asked) == 1
    assert fates.active.all()
    asked[0].there = True
    watch.count()
    assert fates.diverged_at.tolist() == [-1, 7]
    assert len(asked) == 1  # the next block is not full yet
    watch.settle()
    assert len(asked) == 2
    assert watch.alive.tolist() == [True, False]


def test_chains_that_an_earlier_run_lost_stay_lost():
    fates = Fates(np.array([True, False]), np.array([-1, 3]))
    watch = Watch(fates, start=10)
    watch.see(torch.ones(2, dtype=torch.bool))
    watch.count()
    watch.settle()
    assert watch.alive.tolist() == [True, False]
    assert fates.diverged_at.tolist() == [-1, 3]


@pytest.mark.parametrize("steps", [0, 100])
def test_settling_twice_tells_nothing_twice(steps):
    fates = Fates.start(1)
    watch = Watch(fates, start=0)
    for _ in range(steps):
        watch.see(torch.tensor([True]))
        watch.count()
    watch.settle()
    watch.settle()
    watch.see(torch.tensor([False]))
    watch.count()
    watch.settle()
    assert fates.diverged_at.tolist() == [steps]
