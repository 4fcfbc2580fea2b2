"""``python -m bench.steps``: what a step costs, beside its roofs, its rivals and its targets.

How it is measured, and why so, is in bench/README.md. `parts` are the parts of the table, `family`
the one of all samplers, `command` runs and reports them.
"""
