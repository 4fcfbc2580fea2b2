"""How the tests of bad input see that something is refused, and that nothing has changed."""

import copy
from contextlib import contextmanager

import pytest
import torch

F32, F64 = torch.float32, torch.float64
SETTINGS = ["lr", "nbeta", "localization", "weight_decay", "noise_level", "bounding_box_size"]


def snapshot(sampler, tensors):
    return (
        [bytes(t.detach().clone().contiguous().numpy().tobytes()) for t in tensors],
        [
            {k: copy.copy(v) for k, v in g.items() if k in ("seed", "step", "nonfinite_step")}
            for g in sampler.param_groups
        ],
        torch.get_rng_state().tolist(),
    )


@contextmanager
def refuses(error, *words, sampler=None, watch=()):
    """The block raises, the message has all the words, and nothing of `watch` has changed."""
    before = snapshot(sampler, watch) if sampler else None
    with pytest.raises(error) as raised:
        yield
    if sampler:
        after = snapshot(sampler, watch)
        assert after[0] == before[0], "weights were written"
        assert after[1] == before[1], "seed or step changed"
        assert after[2] == before[2], "torch's generator advanced"
    missing = [w for w in words if w not in str(raised.value)]
    assert not missing, f"{missing} not in: {raised.value}"


def overlapping(dtype=F32):
    return torch.zeros(8, dtype=dtype).as_strided((3, 3), (2, 1))
