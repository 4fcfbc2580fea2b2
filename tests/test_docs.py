"""What the README and docs/ show runs as it stands."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "docs/devinterp1.md",
    "docs/estimators.md",
    "docs/loops.md",
    "docs/oracles.md",
    "docs/samplers.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run_in_order(page, tmp_path, monkeypatch):
    path = ROOT / page
    if not path.exists():
        pytest.skip("the tests run without the source tree around them")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        needed = re.match(r"# needs (\w+)", block)
        if needed and importlib.util.find_spec(needed[1]) is None:
            continue
        # The README's second example is a loop over the reader's own data.
        if "for xb, yb in loader" in block:
            names["loader"] = [(names["x"], names["y"])]
        exec(compile(block, page, "exec"), names)
