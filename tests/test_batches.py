"""Data as minibatches: every sample once an epoch, in an order that the seed decides."""

from collections import namedtuple
from itertools import islice

import pytest
import torch
from fastllc.engine.batches import count_samples, open_data, to_device
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fastllc.engine.rng import seeded_rng

CPU = torch.device("cpu")


def pair(n=10):
    return torch.arange(float(n)), torch.arange(n)


class Squares(Dataset):
    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.tensor(float(i)), i


class Countdown(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(6.0))


def epochs(batches, seed, steps):
    with seeded_rng(seed, CPU, batches.generators):
        return [batch[0].tolist() for batch in islice(batches.stream(seed), steps)]


@pytest.mark.parametrize(
    "data",
    [pair(), TensorDataset(*pair()), Squares(), DataLoader(Squares(), 5, shuffle=True)],
    ids=["pair", "TensorDataset", "Dataset", "DataLoader"],
)
def test_epochs_are_shuffled_complete_and_reproducible(data):
    batches = open_data(data, None if isinstance(data, DataLoader) else 5, CPU)
    drawn = epochs(batches, 1, 6)
    for first in (0, 2, 4):
        assert sorted(drawn[first] + drawn[first + 1]) == list(range(10))
    assert drawn[0] != drawn[2]
    assert drawn == epochs(batches, 1, 6)
    assert drawn != epochs(batches, 2, 6)
    assert batches.num_samples == 10
    assert batches.batch_size == 5


@pytest.mark.parametrize("data", [pair(), Squares()], ids=["pair", "Dataset"])
def test_remainder_is_left_out_of_the_stream_but_not_of_the_full_pass(data):
    batches = open_data(data, 4, CPU)
    drawn = epochs(batches, 0, 40)
    assert {len(batch) for batch in drawn} == {4}
    assert {x for batch in drawn for x in batch} == set(range(10))
    assert [len(x) for x, _ in batches.full_pass()] == [4, 4, 2]


def test_inputs_and_targets_stay_together():
    for x, y in islice(open_data(pair(), 3, CPU).stream(0), 9):
        assert (x == y).all()


def test_full_batch_is_the_tensors_themselves():
    x, y = pair()
    drawn = next(open_data((x, y), 10, CPU).stream(0))
    assert drawn[0] is x
    assert drawn[1] is y


def test_default_batch_size():
    assert open_data(pair(10), None, CPU).batch_size == 10
    assert open_data(pair(1000), None, CPU).batch_size == 256


def test_loader_is_used_as_given():
    loader = DataLoader(Squares(), 4, shuffle=False, drop_last=False)
    assert [len(batch) for batch in epochs(open_data(loader, None, CPU), 0, 3)] == [4, 4, 2]


def test_random_states_of_the_caller_come_back():
    own = torch.Generator().manual_seed(7)
    loader = DataLoader(Squares(), 2, shuffle=True, generator=own)
    before, global_before = own.get_state(), torch.get_rng_state()
    first = epochs(open_data(loader, None, CPU), 3, 5)
    assert torch.equal(own.get_state(), before)
    assert torch.equal(torch.get_rng_state(), global_before)
    assert first == epochs(open_data(loader, None, CPU), 3, 5)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_deliver_the_same_batches():
    def drawn(workers):
        loader = DataLoader(Squares(), 5, shuffle=True, num_workers=workers)
        return epochs(open_data(loader, None, CPU), 0, 3)

    assert drawn(2) == drawn(0)


def test_subset_sampler_counts_its_own_samples():
    sampler = torch.utils.data.SubsetRandomSampler(range(4))
    assert open_data(DataLoader(Squares(), 2, sampler=sampler), None, CPU).num_samples == 4


def test_iterable_data_have_no_known_size():
    assert open_data(Countdown(), 2, CPU).num_samples is None
    batches = open_data(DataLoader(Countdown(), 2), None, CPU)
    assert batches.num_samples is None
    assert [b.tolist() for b in islice(batches.stream(0), 4)] == [[0, 1], [2, 3], [4, 5], [0, 1]]


def test_ready_made_batches_have_no_known_size():
    loader = DataLoader(TensorDataset(torch.zeros(4, 3)), batch_size=None)
    assert open_data(loader, None, CPU).num_samples is None


def test_nested_batches_move_and_count():
    point = namedtuple("point", "x y")
    batch = {"a": [torch.zeros(3), "text"], "b": point(torch.ones(3, 2), 1)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1] == "text"
    assert isinstance(moved["b"], point)
    assert moved["b"].x.device.type == "meta"
    assert count_samples(batch) == 3
    assert count_samples({"a": "text", "b": torch.tensor(1.0)}) is None


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


def test_a_loader_without_batches_does_not_hang():
    batches = open_data(DataLoader(Squares(2), 4, drop_last=True), None, CPU)
    with pytest.raises(ValueError, match="data must yield at least one batch"):
        next(batches.stream(0))
