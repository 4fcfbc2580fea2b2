"""Nested batches: mapped, moved, stacked, taken apart, counted."""

from collections import OrderedDict, UserDict, namedtuple
from types import MappingProxyType

import pytest
import torch

from fastllc.engine.minibatch import count_samples, map_tensors, stack, to_device, unpack

Pair = namedtuple("Pair", "x y")


def nested():
    return {"a": [torch.zeros(3), "text"], "b": Pair(torch.ones(3, 2), 1), "c": (None, ())}


def test_only_tensors_are_mapped_and_everything_keeps_its_type():
    found = map_tensors(lambda t: t + 1, nested())
    assert found["a"][0].tolist() == [1.0] * 3
    assert found["a"][1] == "text"
    assert isinstance(found["a"], list)
    assert isinstance(found["b"], Pair)
    assert found["b"].x.sum() == 12
    assert found["b"].y == 1
    assert found["c"] == (None, ())


class Encoding(UserDict):
    """Entries as attributes, as tokenizers return them."""

    def __getattr__(self, name):
        return self.data[name]


def test_mappings_of_every_kind_are_mapped():
    given = Encoding(ids=torch.zeros(2))
    found = map_tensors(lambda t: t + 1, given)
    assert found.ids.tolist() == [1.0, 1.0]
    assert given.ids.tolist() == [0.0, 0.0]
    assert isinstance(map_tensors(lambda t: t, OrderedDict(x=torch.zeros(2))), OrderedDict)
    assert map_tensors(lambda t: t + 1, MappingProxyType({"x": torch.zeros(())})) == {"x": 1.0}


def test_tensors_move():
    moved = to_device(nested(), torch.device("meta"))
    assert moved["a"][0].device.type == moved["b"].x.device.type == "meta"


def test_unpacked_tensors_go_back_to_their_places():
    tensors, repack = unpack(nested())
    assert [tuple(t.shape) for t in tensors] == [(3,), (3, 2)]
    again = repack([torch.tensor(1.0), torch.tensor(2.0)])
    assert (again["a"][0].item(), again["b"].x.item(), again["a"][1]) == (1.0, 2.0, "text")


def test_batches_stack_along_a_new_first_dimension():
    stacked = stack([nested(), map_tensors(lambda t: t + 5, nested())])
    assert stacked["a"][0].tolist() == [[0.0] * 3, [5.0] * 3]
    assert stacked["b"].x.shape == (2, 3, 2)
    assert stacked["a"][1] == "text"


def test_batches_that_differ_in_more_than_tensors_are_refused():
    other = nested()
    other["a"][1] = "another text"
    with pytest.raises(ValueError, match="alike in all but tensors"):
        stack([nested(), other])


def test_batches_of_several_shapes_are_refused_with_the_way_out():
    """Padded to their longest sequence, all are alike until a rare one is in a batch."""
    batches = [{"x": torch.zeros(4, length)} for length in (6, 6, 9)]
    with pytest.raises(ValueError, match=r"got \(4, 6\) and \(4, 9\): engine='inplace'"):
        stack(batches)


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (nested(), 3),
        (torch.zeros(4, 2), 4),
        ((torch.tensor(1.0), torch.zeros(5)), 5),
        (OrderedDict(text="a", x=torch.zeros(2)), 2),
        ({"text": "a", "scalar": torch.tensor(1.0)}, None),
        ("text", None),
        ((), None),
        (3, None),
    ],
)
def test_samples_are_counted_by_the_first_tensor(batch, count):
    assert count_samples(batch) == count
