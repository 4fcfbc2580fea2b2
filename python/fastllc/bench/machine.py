"""The machine that a benchmark runs on, and what a call does to its memory."""

from __future__ import annotations

import ctypes
import datetime
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastllc.info import build_info

__all__ = ["facts", "other_seconds", "peak_resident"]


def facts() -> dict[str, Any]:
    """Return what a result needs beside its numbers.

    Returns
    -------
    dict
        ``date``, ``commit`` (or FASTLLC_COMMIT), ``machine``, ``build_info``.

    Examples
    --------
    >>> list(facts())
    ['date', 'commit', 'machine', 'build_info']
    """
    commit = os.environ.get("FASTLLC_COMMIT") or _git("describe", "--always", "--dirty")
    try:
        cpu = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        cpu = None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {"cpu": cpu[1] if cpu else "unknown", "cores": os.cpu_count()},
        "build_info": build_info(),
    }


def other_seconds() -> float:
    """Return the processor time that has gone to other processes, where Linux tells; else 0.

    Children of this process count as its own once they have ended.

    Examples
    --------
    >>> before = other_seconds()
    >>> other_seconds() - before < 60
    True
    """
    try:
        user, nice, system, _, _, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
        )
    except (OSError, ValueError):
        return 0.0
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def peak_resident(run: Callable[[], object]) -> int:
    """Run, and return the most resident memory at any moment of it, less what there was before.

    Parameters
    ----------
    run : callable
        What to run. Let it, or something like it, have run before: threads are started and code is
        loaded only once.

    Returns
    -------
    int
        Bytes, exact to about 100 KiB. Freed memory is given back to the system first.

    Raises
    ------
    OSError, AttributeError
        Where there is no Linux or no glibc.

    Examples
    --------
    >>> import numpy as np
    >>> peak_resident(lambda: np.ones(2**21)) > 15 * 2**20
    True
    """
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """Return a memory figure of this process, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"no {name} in /proc/self/status")
    return int(found[1]) * 1024


def _git(*command: str) -> str:
    """Return what git prints about the present folder, if that is a repository."""
    try:
        result = subprocess.run(["git", *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
