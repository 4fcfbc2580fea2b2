"""``python -m fastllc bench``: what a step costs, beside its roofs, its rivals and its targets.

How it is measured, and why so, is in bench/README.md of the source tree. The way through the
code: `workloads` has the tensors and everybody's step over them, `timing` measures steps in turn,
`parts` are the parts of the table, `command` runs and reports them.
"""

from fastllc.bench.command import main

__all__ = ["main"]
