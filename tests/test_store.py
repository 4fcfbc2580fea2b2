"""A run in a folder: killed, refused, full, locked, and always the same bits in the end."""

import multiprocessing
import shutil
import time

import numpy as np
import pytest

pytest.importorskip("zarr", reason="needs Python 3.11")

import store_cases as cases

# Python and torch are loaded once, in a server that forks.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "fastllc", "torch._dynamo", "zarr"])
KILLS = 3


def start(*args, **kwargs):
    child = CONTEXT.Process(target=cases.in_child, args=args, kwargs=kwargs)
    child.start()
    return child


@pytest.fixture(scope="module", autouse=True)
def _server():
    child = CONTEXT.Process(target=int)
    child.start()
    finish(child)


def finish(child):
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("case", cases.CASES)
def test_killed_at_random_moments_ends_with_the_same_bits(case, tmp_path, threads):
    threads(1)
    rng = np.random.default_rng(sorted(cases.CASES).index(case))
    path = tmp_path / "store"
    whole = cases.sample(case)
    begin = time.monotonic()
    finish(start(case, path))
    duration = time.monotonic() - begin
    assert cases.opened(path).identical(whole)
    shutil.rmtree(path)
    kills, resumed = 0, False
    for _ in range(10 * KILLS):
        child = start(case, path)
        child.join(rng.uniform(0, duration))
        child.kill()
        child.join()
        if not (path / "position.pt").exists():
            kills += 1
        elif cases.opened(path).attrs["interrupted"]:
            kills += 1
            resumed |= cases.position(path) != (0, 0)
        else:  # too late
            shutil.rmtree(path)
        if kills >= KILLS and resumed:
            break
    else:
        pytest.fail("no child was killed on its way")
    finish(start(case, path))
    trace = cases.opened(path)
    assert trace.identical(whole)
    assert trace.attrs["interrupted"] == 0
