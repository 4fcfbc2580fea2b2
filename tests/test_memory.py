"""What is known of memory between two steps, and weights and gradients that move in it."""

import math
import re
from pathlib import Path

import pytest
import torch

from fastllc.memory import Places, Spans, extent
from helpers import DTYPES, LOW, check_step, draw, leaf, make, same_bits


class Block:
    """A tensor and its storage in one, anywhere."""

    def __init__(self):
        self.address, self.size = 4096, 400

    def data_ptr(self):
        return self.address

    def __len__(self):
        return self.size

    def untyped_storage(self):
        return self


@pytest.mark.parametrize(("name", "value"), [("address", 8192), ("size", 36), ("size", 500)])
def test_a_place_is_kept_only_with_its_address_and_size(name, value):
    """A storage that is made smaller twice may return to where it was: its address says nothing."""
    first, second = Block(), Block()
    places = Places([first, second])
    assert places.kept()
    setattr(second, name, value)
    assert not places.kept()


def test_a_place_is_not_kept_by_a_tensor_that_left_its_storage():
    x = torch.zeros(30)
    places = Places([x])
    assert places.kept()
    x.data = torch.zeros(30)
    assert not places.kept()


def test_spans_are_met_at_every_byte_between_their_ends_and_nowhere_else():
    x = torch.zeros(12)
    spans = Spans([x[8:10], x[2:4]])
    base = extent(x)[0]
    taken = {*range(8, 16), *range(32, 40)}
    for start in range(48):
        for stop in range(start, 49):
            if taken.isdisjoint(range(start, stop)):
                spans.check_outside("y", base + start, base + stop)
            else:
                with pytest.raises(ValueError, match="y must not share memory"):
                    spans.check_outside("y", base + start, base + stop)


def test_no_spans_are_met_by_nothing():
    Spans([torch.zeros(0)]).check_outside("y", 0, 1000)


def test_weights_that_move_in_memory_are_followed(kind):
    a, b = make((300, 3)), make((300, 3))
    sampler, twin = kind(a, seed=0, localization=1.0), kind(b, seed=0, localization=1.0)
    old = []
    for i in range(4):
        sampler.step()
        twin.step()
        old.append((a[0].data, a[0].data.clone()))
        moved = torch.empty(3, 300).t() if i % 2 else torch.empty(300, 3)  # other strides too
        a[0].data = moved.copy_(a[0].data)
        a[0].grad = a[0].grad.clone()
    sampler.step()
    twin.step()
    assert same_bits(a[0], b[0])
    for tensor, copied in old:
        assert torch.equal(tensor, copied), "an abandoned memory was written"


def test_gradients_that_are_freed_and_made_again_each_step(kind):
    a, b = make((64, 64), 5), make((64, 64), 5)
    sampler, twin = kind(a, seed=0), kind(b, seed=0)
    for step in range(20):
        for p, q in zip(a, b, strict=True):
            p.grad = None
            _noise = [torch.full_like(p, math.nan) for _ in range(3)]  # reuses what was freed
            p.grad = draw(p.shape, seed=step)
            q.grad.copy_(p.grad)
        sampler.step()
        twin.step()
    for p, q in zip(a, b, strict=True):
        assert same_bits(p, q)


def test_swapped_tensors_are_followed(kind):
    (a,) = make(5)
    sampler = kind([a], seed=0)
    sampler.step()
    after_one = a.detach().clone()
    other = leaf(torch.zeros(5))
    torch.utils.swap_tensors(a, other)
    a.grad = torch.zeros(5)
    check_step(sampler)
    assert torch.equal(other.detach(), after_one)
    assert not torch.equal(a.detach(), torch.zeros(5))


def status(name):
    """A memory figure of this process in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found[1])


@pytest.mark.parametrize("dtype", DTYPES + LOW, ids=str)
def test_a_step_takes_no_memory(kind, dtype):
    """Below an eighth of the smallest array that it could copy."""
    (param,) = make(4_000_000, dtype=dtype)
    sampler = kind([param], localization=1.0, save_metrics=True, seed=0)
    for _ in range(2):  # makes the state and starts the threads
        sampler.step()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = status("VmRSS")
    for _ in range(2):
        sampler.step()
        sampler.get_metrics()
    assert status("VmHWM") - before < 2**20
