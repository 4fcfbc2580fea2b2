"""Which of its ways torch takes through a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_path"]


@contextmanager
def one_path() -> Iterator[None]:
    """Let torch compute a loss in one way for a while, with gradients and without them.

    The fused encoder layer that it takes without gradients rounds in its own manner, so that a
    baseline would not match its loss, and vmap runs it sample by sample. What vmap runs one by one
    it warns of at every call.

    Examples
    --------
    >>> with one_path():
    ...     torch.backends.mha.get_fastpath_enabled()
    False
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop because", UserWarning)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
