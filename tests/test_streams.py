"""What torch.cuda is asked for, where there is none: each call is written down."""

import numpy as np
import pytest
import torch

from fastllc.kernels import streams

CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch):
    """What was asked, of a device that captures nothing and whose copies come late."""
    found = []

    class Event:
        there = False

        def record(self, stream):
            found.append(("record", stream))

        def query(self):
            return self.there

        def synchronize(self):
            found.append("synchronize")

    def pin(self):
        found.append("pin")
        return self

    copy, empty = torch.Tensor.copy_, torch.empty

    def note_copy(self, source, non_blocking=False):
        found.append(("copy", non_blocking))
        return copy(self, source)

    def note_empty(*args, pin_memory=False, **kwargs):
        found.append(("empty", pin_memory))
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "copy_", note_copy)
    monkeypatch.setattr(torch, "empty", note_empty)
    return found


def test_the_current_stream_is_asked_for_at_every_call(monkeypatch):
    device = torch.device("cuda", 3)
    monkeypatch.setattr(streams, "_raw_stream", lambda index: 100 + index)
    assert streams.current_stream(device) == 103
    monkeypatch.setattr(streams, "_raw_stream", None)  # a torch without it

    class Stream:
        cuda_stream = 55

    monkeypatch.setattr(torch.cuda, "current_stream", lambda at: Stream if at == device else None)
    assert streams.current_stream(device) == 55


def test_uploads_are_from_pinned_memory_and_not_waited_for(asked):
    target = torch.zeros(3, 2)
    streams.upload(target[:, 1], np.arange(6.0, dtype=np.float32)[::2], "numbers")
    assert asked == ["pin", ("copy", True)]
    assert target[:, 1].tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: streams.upload(torch.zeros(1), np.zeros(1), "the lot"),
        lambda: streams.buffer((1,), torch.float32, CPU, "the lot"),
    ],
)
def test_what_no_graph_can_hold_is_refused(asked, monkeypatch, ask):
    ask()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"captured .* the one before it.*\(.*: the lot\)"):
        ask()


class Posing(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    device = torch.device("cuda", 0)

    def detach(self):
        return self.as_subclass(torch.Tensor)


def test_what_is_fetched_is_waited_for_only_when_it_is_wanted(asked, monkeypatch):
    values = torch.arange(3).as_subclass(Posing)
    asked.clear()
    fetched = streams.Fetched([values, values])
    assert asked == [
        ("empty", True),
        ("empty", True),
        ("copy", True),
        ("copy", True),
        ("record", "the stream"),
    ]
    assert not fetched.arrived()
    assert "synchronize" not in asked
    assert [found.tolist() for found in fetched.wait()] == [[0, 1, 2]] * 2
    assert asked[-1] == "synchronize"
    fetched._event.there = True
    assert fetched.arrived()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="must be like the one before it"):
        streams.Fetched([values])


def test_what_is_fetched_from_elsewhere_is_there():
    values = torch.arange(3)
    fetched = streams.Fetched([values])
    assert fetched.arrived()
    assert torch.equal(fetched.wait()[0], values)


def test_values_are_sent_to_where_they_are_wanted():
    assert streams.send(np.arange(3), CPU).tolist() == [0, 1, 2]
