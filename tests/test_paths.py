"""The way that torch takes through a model is its own again, whoever ends first."""

import warnings

import pytest
import torch

from fastllc.engine.paths import one_path


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("fast", [True, False])
def test_runs_that_overlap_leave_what_the_first_one_found(fast, order):
    """As those of two threads do."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    runs = one_path(), one_path()
    try:
        with warnings.catch_warnings():
            for each in runs:
                each.__enter__()
            runs[order[0]].__exit__(None, None, None)
            assert not torch.backends.mha.get_fastpath_enabled()
            runs[order[1]].__exit__(None, None, None)
            assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
