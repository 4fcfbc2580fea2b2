"""Orders of samples, and their rows, made by native code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastllc import kernels

KEYS = np.array([3, 2**64 - 1, 0], np.uint64)
FIRST = [4, 8, 9, 2, 5, 3, 7, 6, 1, 0]
FIRST_DRAWS = [4, 7, 9, 9, 2, 9, 4, 1, 3, 8]


def orders(n, count, epoch=0, keys=KEYS, dtype=torch.int32, **how):
    out = torch.full((len(keys), count), -1, dtype=dtype)
    how = {"replacement": False} | how
    return kernels.order_samples(keys, epoch, n, out, **how)


@given(n=st.integers(1, 300), data=st.data(), dtype=st.sampled_from([torch.int32, torch.int64]))
def test_orders_are_the_beginnings_of_permutations(n, data, dtype):
    count = data.draw(st.integers(0, n))
    whole, part = orders(n, n, dtype=dtype), orders(n, count, dtype=dtype)
    assert torch.equal(part, whole[:, :count])
    assert torch.equal(whole.sort(1).values, torch.arange(n, dtype=dtype).expand(3, n))


def test_orders_follow_from_key_and_epoch_alone():
    alone = torch.cat([orders(50, 50, keys=KEYS[i : i + 1]) for i in range(3)])
    assert torch.equal(orders(50, 50), alone)
    different = {str(orders(50, 50, epoch).tolist()) for epoch in (0, 1, 2**32 - 1)}
    assert len(different) == 3
    assert len({str(row) for row in alone.tolist()}) == 3
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(orders(50, 50), alone)
    finally:
        torch.set_num_threads(threads)


def test_an_order_never_changes():
    """Part of what makes an interrupted run go on with the same bits, with another version too."""
    assert orders(10, 10)[0].tolist() == FIRST
    assert orders(10, 10, replacement=True)[0].tolist() == FIRST_DRAWS


def test_all_orders_are_as_likely():
    """Chi-squared over the 24 orders of 4 samples: 23 degrees of freedom."""
    keys = np.arange(24_000, dtype=np.uint64)
    rows = orders(4, 4, keys=keys).numpy()
    counts = np.unique(rows @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert abs(chi2 - 23) < 4 * math.sqrt(2 * 23)


def test_draws_with_replacement_are_as_likely():
    n, count = 7, 70_000
    for row in orders(n, count, replacement=True).numpy():
        counts = np.bincount(row, minlength=n)
        chi2 = ((counts - count / n) ** 2 / (count / n)).sum()
        assert len(counts) == n
        assert abs(chi2 - (n - 1)) < 4 * math.sqrt(2 * (n - 1))
        # Neighbours are independent: the 49 pairs too.
        pairs = np.bincount(row[::2] * n + row[1::2], minlength=n * n)
        expected = count / 2 / n**2
        assert abs(((pairs - expected) ** 2 / expected).sum() - 48) < 4 * math.sqrt(2 * 48)


@given(
    n=st.integers(1, 20),
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16]),
    batch=st.integers(1, 9),
    wide=st.booleans(),
)
def test_rows_are_those_of_the_index(n, shape, dtype, batch, wide):
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(100, (n, *shape), generator=generator).to(dtype)
    index = torch.randint(n, (3, batch + 2), generator=generator)[:, 1:-1]
    index = index if wide else index.int()
    across = tensor.ndim == 2 and dtype.itemsize in (4, 8)
    for columns_first in {False, across}:
        rows = kernels.Rows([tensor, torch.arange(n)], [columns_first, False])
        found, numbers = rows.take(index)
        assert torch.equal(found, tensor[index])
        assert torch.equal(numbers, index.long())
        assert found.mT.is_contiguous() if columns_first else found.is_contiguous()


def test_large_rows_on_several_threads():
    tensor = torch.arange(50 * 40_000).view(50, 40_000)
    index = torch.arange(49, -1, -1).view(2, 25)
    (found,) = kernels.Rows([tensor], [False]).take(index)
    assert torch.equal(found, tensor[index])


def test_rows_of_memory_that_is_gone():
    tensor = torch.zeros(10, 4)
    rows = kernels.Rows([tensor], [False])
    index = torch.zeros(1, 2, dtype=torch.int32)
    rows.take(index)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"data\[0\] must have its memory"):
        rows.take(index)
    tensor.untyped_storage().resize_(10 * 4 * 4)
    tensor.fill_(2)
    assert torch.equal(rows.take(index)[0], torch.full((1, 2, 4), 2.0))
