"""Data whose samples are numbers, so that it shows which ones a minibatch holds."""

from itertools import islice

import torch
from torch.utils.data import Dataset, IterableDataset

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
    """No length."""

    def __iter__(self):
        return iter(torch.arange(6.0))


def drawn(batches, key, steps):
    """The samples in the first minibatches of a chain."""
    return [minibatch.batch[0].tolist() for minibatch in islice(batches.stream([key]), steps)]
