"""Tensors in memory as minibatches: epochs, addresses, keys, replacement."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastllc.engine.tensors import TensorBatches

CPU = torch.device("cpu")


def batches(n=10, size=5, **how):
    return TensorBatches((torch.arange(float(n)), torch.arange(n)), size, CPU, **how)


def drawn(source, keys, steps, start=0):
    """The samples of each step, as nested lists."""
    found = list(islice(source.stream(keys, start), steps))
    for batch, samples, _ in found:
        assert torch.equal(batch[0], batch[1].float())  # inputs and targets stay together
        assert torch.equal(batch[1], samples)
    return [samples.tolist() for _, samples, _ in found]


@given(size=st.integers(1, 12), n=st.integers(1, 30), key=st.integers(0, 2**64 - 1))
def test_epochs_are_complete_but_for_the_remainder(size, n, key):
    n = max(n, size + 1)
    per_epoch = n // size
    steps = drawn(batches(n, size), [key], 3 * per_epoch)
    for epoch in range(3):
        seen = [x for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for x in step]
        assert len(set(seen)) == len(seen) == per_epoch * size
        assert set(seen) <= set(range(n))
    assert drawn(batches(n, size), [key], 3 * per_epoch) == steps


def test_no_sample_is_left_out_for_good():
    steps = drawn(batches(10, 4), [0], 40)
    assert {x for step in steps for x in step} == set(range(10))


@given(
    size=st.integers(1, 8),
    n=st.integers(9, 25),
    start=st.integers(0, 60),
    replacement=st.booleans(),
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
)
def test_minibatches_are_addressed(size, n, start, replacement, keys):
    """A stream from number k on is one from the start with k left out."""
    source = batches(n, size, replacement=replacement)
    assert drawn(source, keys, 4, start) == drawn(source, keys, start + 4)[start:]


def test_each_key_has_an_order_of_its_own_whoever_walks_beside_it():
    source = batches(20, 4)
    alone = {key: drawn(source, [key], 12) for key in (1, 2, 3)}
    assert len({str(steps) for steps in alone.values()}) == 3
    together = drawn(source, [3, 1, 2], 12)
    for step in range(12):
        assert together[step] == [alone[3][step], alone[1][step], alone[2][step]]


def test_streams_at_once_do_not_disturb_each_other():
    source = batches(20, 4)
    alone = drawn(source, [1], 12), drawn(source, [2], 12)
    first, second = source.stream([1]), source.stream([2])
    for step in range(12):
        assert next(first).samples.tolist() == alone[0][step]
        assert next(second).samples.tolist() == alone[1][step]


def test_chains_of_one_key_share_minibatches_that_are_not_stacked():
    source = batches(20, 4)
    shared = next(source.stream([5, 5, 5]))
    assert not shared.stacked
    assert shared.batch[0].shape == (4,)
    assert shared.samples.tolist() == drawn(source, [5], 1)[0]
    own = next(source.stream([5, 6, 5]))
    assert own.stacked
    assert own.batch[0].shape == (3, 4)
    assert torch.equal(own.samples[0], own.samples[2])


def test_orders_are_uniform():
    """Each sample comes at each place of an epoch equally often: chi squared over 6 x 6 places."""
    n, epochs = 6, 3000
    counts = np.zeros((n, n))
    places = np.arange(n)
    steps = np.array(drawn(batches(n, 2), [3], epochs * 3)).reshape(epochs, n)
    for order in steps:
        counts[places, order] += 1
    # Rows and columns add up, so n / (n - 1) times chi squared of (n - 1)^2 degrees of freedom.
    expected = epochs / n
    chi2 = (n - 1) / n * ((counts - expected) ** 2 / expected).sum()
    assert abs(chi2 - 25) < 4 * 50**0.5


def test_draws_with_replacement_are_uniform_and_independent():
    n, size, steps = 5, 5, 4000
    found = np.array(drawn(batches(n, size, replacement=True), [4], steps))
    counts = np.bincount(found.ravel(), minlength=n)
    expected = steps * size / n
    # n - 1 degrees of freedom
    assert ((counts - expected) ** 2 / expected).sum() < 4 + 4 * 8**0.5
    # Two places of a step agree with probability 1 / n; never without replacement.
    same = (found[:, 0] == found[:, 1]).mean()
    assert abs(same - 1 / n) < 4 * (0.2 * 0.8 / steps) ** 0.5
    # So do the same places of successive steps, which a fixed order would not let happen so often.
    again = (found[1:, 0] == found[:-1, 0]).mean()
    assert abs(again - 1 / n) < 4 * (0.2 * 0.8 / steps) ** 0.5


def test_with_replacement_a_full_batch_is_drawn_too():
    source = batches(10, 10, replacement=True)
    assert source.indexed
    assert any(len(set(step)) < 10 for step in drawn(source, [0], 5))


def test_a_full_batch_is_the_tensors_themselves():
    x, y = torch.arange(3.0), torch.arange(3)
    source = TensorBatches((x, y), 3, CPU)
    (first, second), samples, stacked = next(source.stream([0, 1]))
    assert first is x
    assert second is y
    assert samples is None
    assert not stacked
    assert not source.indexed


def test_the_full_pass_holds_every_sample_in_order():
    passed = list(batches(10, 4).full_pass())
    assert [len(x) for x, _ in passed] == [4, 4, 2]
    assert torch.cat([x for x, _ in passed]).tolist() == list(range(10))


def test_samples_keep_their_shape_and_type():
    x = torch.arange(24, dtype=torch.bfloat16).view(6, 2, 2)
    (found,), samples, _ = next(TensorBatches((x,), 2, CPU).stream([1, 2]))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, x[samples])


@pytest.mark.parametrize("replacement", [False, True])
def test_random_states_are_left_alone(replacement):
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    drawn(batches(replacement=replacement), [1, 2], 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002
