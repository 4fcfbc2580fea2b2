"""``python -m fastllc bench``: fastllc beside pure PyTorch, devinterp and the memory floor.

The way through the code: `workloads` has tensors and everybody's step over them, `pure` that of
PyTorch, `problem` what whole estimates are of; `timing` measures in turn, `steps` and `estimates`
say what; a `comparison` is a row of the `table` and a group of bars of the `picture`; `command`
runs them all.
"""

from fastllc.bench.command import main

__all__ = ["main"]
