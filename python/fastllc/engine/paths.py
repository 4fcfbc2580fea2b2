"""Which of its ways torch takes through a model."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_path"]

_lock = threading.Lock()
_before: list[bool] = []


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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop because", UserWarning)
        with _lock:
            _before.append(torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            with _lock:  # what the first of several threads found, once the last one is done
                fast = _before.pop()
                if not _before:
                    torch.backends.mha.set_fastpath_enabled(fast)
