"""DataLoaders used as given, and seeded epoch by epoch."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fastllc.engine.loaders import LoaderBatches
from sources import Squares

CPU = torch.device("cpu")
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Jittered(Squares):
    """A transform that draws from torch."""

    def __getitem__(self, i):
        return torch.rand(()), i


class Countdown(IterableDataset):
    def __iter__(self):
        return iter([(torch.tensor([float(i)]), i) for i in range(6)])


class Unsized:
    """A sampler without a length, that draws from torch."""

    def __iter__(self):
        return iter(torch.randperm(10).tolist())


def opened(loader):
    return LoaderBatches(loader, loader, CPU)


def drawn(loader, keys, steps, start=0):
    """The first tensor of each step."""
    stream = opened(loader).stream(keys, start)
    found = [minibatch.batch[0].tolist() for minibatch in islice(stream, steps)]
    stream.close()
    return found


def shuffled(size=5, **how):
    return DataLoader(Squares(), size, shuffle=True, **how)


def test_epochs_are_shuffled_complete_and_reproducible():
    steps = drawn(shuffled(), [1], 6)
    for first in (0, 2, 4):
        assert sorted(steps[first] + steps[first + 1]) == list(range(10))
    assert len({str(steps[first : first + 2]) for first in (0, 2, 4)}) == 3
    assert drawn(shuffled(), [1], 6) == steps
    assert drawn(shuffled(), [2], 6) != steps


def random_sampler():
    return RandomSampler(Squares(), generator=torch.Generator().manual_seed(7))


LOADERS = {
    "shuffled": shuffled(4),
    "drop-last": shuffled(4, drop_last=True),
    "own-generator": shuffled(4, generator=torch.Generator().manual_seed(7)),
    "sampler-generator": DataLoader(Squares(), 4, sampler=random_sampler()),
    "batch-sampler": DataLoader(Squares(), batch_sampler=BatchSampler(random_sampler(), 4, False)),
    "weighted": DataLoader(Squares(), 4, sampler=WeightedRandomSampler([1.0] * 10, 10)),
    "jittered": DataLoader(Jittered(), 4, shuffle=True),
    "unsized": DataLoader(Squares(), 4, sampler=Unsized()),
    "iterable": DataLoader(Countdown(), 4),
    "ready-made": DataLoader(Countdown(), batch_size=None),
}
OWN_GENERATORS = ("own-generator", "sampler-generator", "batch-sampler")


@pytest.mark.parametrize("name", LOADERS)
@settings(max_examples=25)
@given(start=st.integers(0, 12), keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=2))
def test_minibatches_are_addressed(name, start, keys):
    """A stream from number k on is one from the start with k left out."""
    loader = LOADERS[name]
    assert drawn(loader, keys, 4, start) == drawn(loader, keys, start + 4)[start:]


@pytest.mark.parametrize("name", LOADERS)
def test_a_chain_reads_the_same_whoever_reads_beside_it(name):
    loader = LOADERS[name]
    alone = {key: drawn(loader, [key], 7) for key in (1, 2)}
    together = drawn(loader, [2, 1], 7)
    assert [step[1] for step in together] == alone[1]
    assert [step[0] for step in together] == alone[2]
    if name not in ("iterable", "ready-made"):
        assert alone[1] != alone[2]


@pytest.mark.parametrize("name", LOADERS)
def test_random_states_of_the_caller_are_left_alone(name):
    loader = LOADERS[name]
    generators = opened(loader).generators
    assert len(generators) == (name in OWN_GENERATORS)
    before = [g.get_state() for g in generators], torch.get_rng_state()
    stream = opened(loader).stream([1, 2])
    for _ in range(7):  # also while the stream is open
        next(stream)
        assert torch.equal(torch.get_rng_state(), before[1])
        for generator, state in zip(generators, before[0], strict=True):
            assert torch.equal(generator.get_state(), state)
    stream.close()


def test_what_the_caller_draws_meanwhile_changes_nothing():
    stream, found = opened(LOADERS["jittered"]).stream([3]), []
    for _ in range(6):
        torch.rand(5)
        found.append(next(stream).batch[0].tolist())
    assert found == drawn(LOADERS["jittered"], [3], 6)


def test_a_loader_is_used_as_given():
    loader = DataLoader(Squares(), 4, shuffle=False, drop_last=False)
    assert drawn(loader, [0], 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    collated = DataLoader(Squares(), 4, collate_fn=lambda items: (torch.ones(len(items)),))
    assert drawn(collated, [0], 3) == [[1.0] * 4, [1.0] * 4, [1.0] * 2]


def test_chains_of_one_key_share_minibatches_and_one_reading():
    read = []

    class Watched(Squares):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    loader = DataLoader(Watched(), 5, shuffle=True)
    shared = next(opened(loader).stream([4, 4, 4]))
    assert not shared.stacked
    assert shared.batch[0].shape == (5,)
    assert len(read) == 5
    own = next(opened(loader).stream([4, 5, 4]))
    assert own.stacked
    assert own.batch[0].shape == (3, 5)
    assert torch.equal(own.batch[0][0], own.batch[0][2])
    assert own.samples is None


@FORKS
@pytest.mark.parametrize("data", [Squares(), Jittered()], ids=["plain", "jittered"])
def test_workers_are_reproducible(data):
    loader = DataLoader(data, 5, shuffle=True, num_workers=2)
    first = drawn(loader, [1], 4)
    assert drawn(loader, [1], 4) == first
    assert drawn(loader, [1], 2, start=2) == first[2:]


@FORKS
def test_workers_deliver_the_order_of_no_workers():
    assert drawn(shuffled(num_workers=2), [1], 4) == drawn(shuffled(), [1], 4)


@FORKS
def test_persistent_workers_serve_one_key_and_are_refused_for_several():
    loader = shuffled(num_workers=1, persistent_workers=True)
    assert drawn(loader, [1, 1], 4) == drawn(shuffled(), [1], 4)
    with pytest.raises(ValueError, match=r"data must have workers .* persistent_workers=True"):
        drawn(loader, [1, 2], 1)


@pytest.mark.parametrize(
    ("loader", "num_samples", "batch_size"),
    [
        (shuffled(4), 10, 4),
        (DataLoader(Squares(), 2, sampler=SubsetRandomSampler(range(4))), 4, 2),
        (LOADERS["batch-sampler"], 10, None),
        (
            DataLoader(
                Squares(), batch_sampler=BatchSampler(SubsetRandomSampler(range(4)), 2, False)
            ),
            4,
            None,
        ),
        (LOADERS["unsized"], 10, 4),
        (LOADERS["iterable"], None, 4),
        (LOADERS["ready-made"], None, None),
    ],
    ids=[
        "shuffled",
        "subset",
        "batch-sampler",
        "batches-of-a-subset",
        "unsized",
        "iterable",
        "ready-made",
    ],
)
def test_samples_are_counted_where_that_is_possible(loader, num_samples, batch_size):
    batches = opened(loader)
    assert (batches.num_samples, batches.batch_size) == (num_samples, batch_size)


@pytest.mark.parametrize("keys", [[0], [0, 1]])
def test_a_loader_without_batches_does_not_hang(keys):
    for loader in (DataLoader(Squares(2), 4, drop_last=True), DataLoader([], 4)):
        for start in (0, 5):
            with pytest.raises(ValueError, match="data must yield at least one batch"):
                drawn(loader, keys, 1, start)


def test_a_source_that_dries_up_is_named():
    once = iter(Countdown())

    class Once(IterableDataset):
        def __iter__(self):
            return once

    with pytest.raises(ValueError, match="data must yield at least one batch"):
        drawn(DataLoader(Once(), 2), [0], 4)


def test_the_full_pass_is_that_of_its_own_loader():
    train = DataLoader(Squares(), 4, sampler=SequentialSampler(Squares()), drop_last=True)
    batches = LoaderBatches(train, DataLoader(Squares(), 4), CPU)
    assert [len(x) for x, _ in batches.full_pass()] == [4, 4, 2]
    assert not batches.indexed
