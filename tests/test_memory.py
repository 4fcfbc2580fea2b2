"""What is known of memory between two steps."""

import pytest
import torch

from fastllc.memory import Places, Spans, extent


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
