"""Ctrl-C, heard between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["heard_between"]


@contextmanager
def heard_between() -> Iterator[Callable[[], None]]:
    """Let a step end before an interrupt ends the run; a second interrupt comes through at once.

    An exception at any instruction can leave torch within a `vmap`, where nothing works any more:
    of 25 interrupted runs, two ended in an error. Handlers that are not Python's own are left
    alone. An error after an interrupt is taken for its consequence: a DataLoader's workers hear
    the interrupt too, and end.

    Yields
    ------
    check : callable
        Raises `KeyboardInterrupt` if somebody interrupted; so does the end of the context.

    Examples
    --------
    >>> with heard_between() as check:
    ...     signal.raise_signal(signal.SIGINT)
    ...     print("the step ends")
    ...     try:
    ...         check()
    ...     except KeyboardInterrupt:
    ...         print("and then the run")
    the step ends
    and then the run
    """
    asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    def check() -> None:
        nonlocal asked
        if asked:
            asked = False
            raise KeyboardInterrupt

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield check
    except Exception as error:
        if asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
