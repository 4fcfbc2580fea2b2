"""Data of every kind as minibatches: what they have in common, and what is refused."""

from itertools import islice

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from fastllc.engine.data import open_data
from fastllc.engine.loaders import LoaderBatches
from fastllc.engine.tensors import TensorBatches
from sources import CPU, Countdown, Squares, drawn, pair


@pytest.mark.parametrize(
    "data",
    [pair(), TensorDataset(*pair()), Squares(), DataLoader(Squares(), 5, shuffle=True)],
    ids=["pair", "TensorDataset", "Dataset", "DataLoader"],
)
def test_epochs_are_shuffled_complete_and_reproducible(data):
    batches = open_data(data, None if isinstance(data, DataLoader) else 5, CPU)
    found = drawn(batches, 1, 6)
    for first in (0, 2, 4):
        assert sorted(found[first] + found[first + 1]) == list(range(10))
    assert found[:2] != found[2:4]
    assert found == drawn(batches, 1, 6)
    assert found != drawn(batches, 2, 6)
    assert batches.num_samples == 10
    assert batches.batch_size == 5


@pytest.mark.parametrize("data", [pair(), Squares()], ids=["pair", "Dataset"])
def test_remainder_is_left_out_of_the_stream_but_not_of_the_full_pass(data):
    batches = open_data(data, 4, CPU)
    found = drawn(batches, 0, 40)
    assert {len(batch) for batch in found} == {4}
    assert {x for batch in found for x in batch} == set(range(10))
    assert [len(x) for x, _ in batches.full_pass()] == [4, 4, 2]
    assert [int(i) for _, y in batches.full_pass() for i in y] == list(range(10))


@pytest.mark.parametrize("data", [pair(), Squares()], ids=["pair", "Dataset"])
def test_skipping_ahead_is_going_on(data):
    batches = open_data(data, 3, CPU)
    for keys in ([5], [5, 6], [5, 5]):
        whole = [m.batch[0].tolist() for m in islice(batches.stream(keys), 12)]
        for start in (1, 3, 7):
            later = islice(batches.stream(keys, start), 12 - start)
            assert [m.batch[0].tolist() for m in later] == whole[start:]


@pytest.mark.parametrize("data", [pair(), Squares()], ids=["pair", "Dataset"])
def test_replacement_draws_samples_again(data):
    batches = open_data(data, 5, CPU, replacement=True)
    found = drawn(batches, 0, 400)
    counts = torch.bincount(torch.tensor(found).long().flatten(), minlength=10)
    # Binomial(2000, 1/10) each: 13.4 is one standard deviation.
    assert ((counts - 200).abs() < 5 * 13.4).all()
    assert counts.float().var() > 10  # without replacement they would all be 200
    epochs = [a + b for a, b in zip(found[::2], found[1::2], strict=True)]
    assert sum(len(set(epoch)) == 10 for epoch in epochs) < 5  # of 200: 10!/10^10 = 0.04 % each
    assert found == drawn(batches, 0, 400)


def test_kinds_of_data():
    assert isinstance(open_data(pair(), None, CPU), TensorBatches)
    assert isinstance(open_data([*pair()], None, CPU), TensorBatches)
    assert isinstance(open_data(TensorDataset(*pair()), None, CPU), TensorBatches)
    for data in (Squares(), ConcatDataset([Squares()]), Countdown(), DataLoader(Squares())):
        assert isinstance(open_data(data, None, CPU), LoaderBatches)


def test_default_batch_size():
    assert open_data(pair(10), None, CPU).batch_size == 10
    assert open_data(pair(1000), None, CPU).batch_size == 256
    assert open_data(Squares(1000), None, CPU).batch_size == 256


@pytest.mark.parametrize(
    ("data", "batch_size", "error", "message"),
    [
        (torch.zeros(3), None, TypeError, "data must be .* got Tensor"),
        ((torch.zeros(3),), None, TypeError, r"data must be .* got a tuple of 1 \(Tensor\)"),
        (([1], [2]), None, TypeError, r"data must be .* got a tuple of 2 \(list, list\)"),
        ((torch.zeros(3), torch.zeros(4)), None, ValueError, r"data .* shapes \[3\] and \[4\]"),
        ((torch.tensor(1.0), torch.zeros(4)), None, ValueError, r"data .* shapes \[\] and \[4\]"),
        (pair(0), None, ValueError, "data must hold at least one sample, got 0"),
        (Squares(0), None, ValueError, "data must hold at least one sample, got 0"),
        (pair(3), 4, ValueError, r"batch_size must be <= 3 .* got 4"),
        (Squares(3), 4, ValueError, r"batch_size must be <= 3 .* got 4"),
        (DataLoader(Squares()), 4, ValueError, "batch_size must be None .* got 4"),
    ],
)
def test_bad_data(data, batch_size, error, message):
    with pytest.raises(error, match=message):
        open_data(data, batch_size, CPU)


@pytest.mark.parametrize("data", [DataLoader(Squares()), Countdown()])
def test_replacement_is_refused_where_data_bring_their_order(data):
    with pytest.raises(ValueError, match=r"replacement must be False .* got True"):
        open_data(data, None, CPU, replacement=True)
