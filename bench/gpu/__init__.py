"""``python -m bench.gpu``: steps and a whole estimate on a GPU, beside peers and targets.

``python -m bench.gpu.check`` (`make gpu-check`) builds, tests, measures and sanitizes, and writes
one report. The way through the code: `parts` are the parts of the table, `shares` their
rows, `estimate` the whole estimate, `sanitize` what compute-sanitizer watches.
"""
