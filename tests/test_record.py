"""Series in chunks, and the fates of chains."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastllc.engine.layout import Memory, Variable
from fastllc.engine.record import Fates, Record, Series


class Counting:
    """An array that counts how often each item is written."""

    def __init__(self, shape):
        self.values = np.full(shape, np.nan, np.float32)
        self.writes = np.zeros(shape[1], int)
        self.shape = shape

    def __getitem__(self, index):
        return self.values[index]

    def __setitem__(self, index, values):
        self.values[index] = values
        self.writes[index[1]] += 1


@given(
    times=st.integers(1, 30),
    chunk=st.integers(1, 12),
    flushes=st.sets(st.integers(0, 30)),
    stop=st.integers(0, 30),
)
def test_series_hold_what_was_appended_whenever_they_are_flushed(times, chunk, flushes, stop):
    """And nothing behind it; every value is written, in whole chunks, as often as it is flushed."""
    stop = min(stop, times)
    chunk = min(chunk, times)
    target = Counting((5, times))
    series = Series(target, (slice(1, 4),), 3, chunk=chunk)
    values = torch.arange(3.0 * times).view(3, times)
    for t in range(stop):
        if t in flushes:
            series.flush()
            series.flush()  # what is written already is not written again
        series.append(values[:, t])
    series.flush()
    np.testing.assert_array_equal(target.values[1:4, :stop], values[:, :stop])
    assert np.isnan(target.values[1:4, stop:]).all()
    assert np.isnan(target.values[[0, 4]]).all()
    assert (target.writes[:stop] >= 1).all()
    assert target.writes.sum() <= chunk * (stop // chunk + len(flushes) + 1)


@given(
    times=st.integers(1, 30),
    chunk=st.integers(1, 12),
    first=st.integers(0, 30),
    lost=st.integers(0, 5),
    tail=st.sampled_from([(), (2,), (2, 3)]),
)
def test_series_go_on_from_any_time(times, chunk, first, lost, tail):
    """Killed behind `first`: what was written after it is written again, what was before stays."""
    first = min(first, times)
    target = np.full((2, 2, times, *tail), np.nan, np.float32)
    place = (slice(0, 1), slice(0, 2))
    values = (
        torch.arange(2.0 * times)[:, None].view(2, times, *[1] * len(tail)).expand(2, times, *tail)
    )
    series = Series(target, place, 2, chunk=chunk)
    for t in range(min(first + lost, times)):
        if t == first:
            series.flush()
        series.append(values[:, t] if t < first else -values[:, t])
    series.flush()
    series = Series(target, place, 2, chunk=chunk, start=first)
    for t in range(first, times):
        series.append(values[:, t])
    series.flush()
    np.testing.assert_array_equal(target[0], values)
    assert np.isnan(target[1]).all()


def test_what_single_precision_does_not_hold_is_infinite_without_a_warning():
    """As a metric in double precision becomes in the last draws of a chain that runs away."""
    target = np.full((2, 1), np.nan)
    series = Series(target, (slice(0, 2),), 2, chunk=1)
    series.append(torch.tensor([1e39, 1.5], dtype=torch.float64))
    assert target[:, 0].tolist() == [math.inf, 1.5]


def test_a_chain_is_lost_once():
    fates = Fates.start(3)
    fates.lose(np.array([True, True, True]), 1)
    fates.lose(np.array([True, False, True]), 4)
    fates.lose(np.array([True, False, False]), 7)
    assert fates.diverged_at.tolist() == [-1, 4, 7]
    assert fates.active.tolist() == [True, False, False]
    again = Fates.start(3)
    again.lose_at(fates.diverged_at.tolist())
    assert again.active.tolist() == [True, False, False]


def test_records_hold_nothing_of_lost_chains():
    memory = Memory(
        {
            "diverged_at": Variable(("setting", "chain"), (2, 2), "int64", -1),
            "steps/loss": Variable(("setting", "chain", "step"), (2, 2, 3), chunk=2),
        },
        {},
    )
    record = Record(memory, (slice(1, 2), slice(0, 2)), 2, {"steps/loss": 0})
    fates = Fates.start(2)
    given = torch.tensor([1, 2])  # counts are kept as numbers that can be NaN
    for step in range(3):
        if step == 1:
            fates.lose(np.array([False, True]), step)
        record.append("steps/loss", given, fates.active)
    assert given.tolist() == [1, 2]
    record.flush(fates)
    nan = np.nan
    loss = memory.tree()["steps/loss"].values
    np.testing.assert_array_equal(loss[1], [[1, nan, nan], [2, 2, 2]])
    assert np.isnan(loss[0]).all()
    assert memory.tree()["diverged_at"].values.tolist() == [[-1, -1], [1, -1]]
