"""A run in a folder: killed, refused, full, locked, and always the same bits in the end."""

import functools
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, Dataset

import fastllc
from fastllc import SGHMC
from fastllc.diagnostics import summarize
from fastllc.engine import loop, products, store
from fastllc.estimators.coefficient import llc
from fastllc.estimators.traces import LEADING

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
        child.join(rng.uniform(0, 0.7 * duration))
        child.kill()
        child.join()
        if not (path / "position.pt").exists():
            kills += 1
        elif cases.opened(path).attrs["interrupted"]:
            kills += 1
            resumed |= cases.position(path) != (0, 0)
        else:  # too late
            shutil.rmtree(path)
            resumed = False
        if kills >= KILLS and resumed:
            break
    else:
        pytest.fail("no child was killed on its way")
    finish(start(case, path))
    trace = cases.opened(path)
    assert trace.identical(whole)
    assert trace.attrs["interrupted"] == 0


@pytest.mark.parametrize("die_at", np.random.default_rng(0).choice(60, 6, replace=False) + 1)
def test_killed_while_the_store_is_made(die_at, tmp_path, threads):
    threads(1)
    path = tmp_path / "store"
    child = start("vectorised", path, die_at=die_at)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert path.exists()
    assert not (path / "position.pt").exists()
    (path / "notes.txt").write_text("mine")
    finish(start("vectorised", path))
    assert cases.opened(path).identical(cases.sample("vectorised"))
    assert not list(path.rglob("*.partial"))
    assert (path / "notes.txt").read_text() == "mine"


def test_complete_store_is_only_read(tmp_path):
    path, calls = tmp_path / "store", []
    first = cases.sample("momenta in place", loss_fn=counted(calls.append), store=path).load()
    assert len(calls) > 4 * 24
    before, calls = contents(path), []
    second = cases.sample("momenta in place", loss_fn=counted(calls.append), store=path)
    assert len(calls) <= 3  # whether the loss is fit, and the same
    assert second.identical(first)
    assert contents(path) == before


def contents(path):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("case", cases.CASES)
def test_trace_is_that_of_a_run_without_a_store(case, tmp_path):
    path = tmp_path / "store"
    memory, kept = cases.sample(case), cases.sample(case, store=path)
    assert kept.identical(memory)
    tree = cases.opened(path)
    assert tree.identical(memory)
    for node in memory.subtree:
        for name, values in node.variables.items():
            found = tree[node.path].variables[name]
            assert (found.dims, found.dtype) == (values.dims, values.dtype)
    xr.testing.assert_identical(llc(tree), llc(memory))
    assert str(summarize(tree)) == str(summarize(memory))


def test_types_in_the_folder(tmp_path):
    path = tmp_path / "store"
    cases.sample("vectorised", store=path)
    tree = cases.opened(path)
    assert tree["checkpoint"].values.tolist() == ["first", "the last"]
    assert tree["diverged_at"].dtype == np.int64
    assert tree["init_loss"].dtype == np.float64
    assert tree["steps/loss"].dtype == np.float32
    assert tree["observables/probe/loss"].dims == (*LEADING, "chain", "draw", "sample")
    assert tree["observables/probe/draw"].values.tolist() == [0, 3, 6, 9]
    assert tree.attrs["seed"] == 5
    assert tree.attrs["interrupted"] == 0


class Stop(Exception):
    """What ends a run from within."""


def stopped(error, at):
    """A loss that raises `error` at one of its calls."""
    return counted(lambda call: _raise(error) if call == at else None)


def _raise(error):
    raise error


def counted(act):
    """The loss of all cases, by its name too; calls `act` with the number of each call."""
    numbers = itertools.count()

    @functools.wraps(cases.squares)
    def loss(outputs, targets):
        act(next(numbers))
        return cases.squares(outputs, targets)

    return loss


@pytest.fixture
def eager(monkeypatch):
    """Save at every step."""
    monkeypatch.setattr(store, "_MIN_SECONDS", 0.0)
    monkeypatch.setattr(store, "_MAX_SHARE", 1e9)
    monkeypatch.setattr(loop, "_TICK_SECONDS", 0.0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("at", [40, 80])
def test_interrupted_run_is_valid_and_goes_on(at, tmp_path):
    path = tmp_path / "store"
    whole = cases.sample("momenta in place")
    with pytest.warns(UserWarning, match="interrupted"):
        part = cases.sample(
            "momenta in place", loss_fn=stopped(KeyboardInterrupt, at), store=path
        ).load()
    assert part.attrs["interrupted"] == 1
    assert part.identical(cases.opened(path))
    done = np.isfinite(part["steps/loss"].values)
    assert 0.2 < done.mean() < 0.9
    np.testing.assert_array_equal(part["steps/loss"].values[done], whole["steps/loss"].values[done])
    assert "interrupted" in str(summarize(part))
    assert cases.sample("momenta in place", store=path).identical(whole)


@pytest.mark.usefixtures("eager")
def test_loader_that_does_not_repeat_itself_is_told(tmp_path):
    class Moody(Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, i):
            return torch.from_numpy(rng.normal(size=4)).float(), torch.zeros(2)

    rng = np.random.default_rng(0)
    settings = {"data": DataLoader(Moody(), 10), "store": tmp_path / "store"}
    with pytest.raises(Stop):
        cases.sample("loader", loss_fn=stopped(Stop, 60), **settings)
    assert cases.position(tmp_path / "store") > (0, 0)
    with pytest.warns(UserWarning, match="does not give the same minibatches again"):
        trace = cases.sample("loader", **settings)
    assert np.isfinite(trace["steps/loss"]).all()


class Shaky(nn.Linear):
    """Random, but by less than what makes baselines useless."""

    def forward(self, x):
        return super().forward(x) * (1 + 1e-5 * torch.randn(()))


@pytest.mark.usefixtures("eager")
def test_baseline_of_a_random_loss_is_that_of_the_first_start(tmp_path):
    def run(**settings):
        torch.manual_seed(0)
        model, x = Shaky(4, 2), torch.randn(50, 4)
        data = x, torch.randn(50, 2)
        torch.seed()
        return fastllc.sample(
            model, data, num_draws=20, batch_size=10, engine="inplace", progress=False, **settings
        )

    path = tmp_path / "store"
    with pytest.raises(Stop):
        run(loss_fn=stopped(Stop, 60), seed=None, store=path)
    assert cases.position(path) > (0, 0)
    trace = run(loss_fn=cases.squares, seed=None, store=path)
    whole = run(loss_fn=cases.squares, seed=trace.attrs["seed"])
    assert "baseline" in trace["steps"]
    assert trace.identical(whole)


def test_seed_of_the_store_is_used_where_none_is_given(tmp_path):
    path = tmp_path / "store"
    first = cases.sample("boxes", seed=None, store=path).load()
    assert cases.sample("boxes", seed=None, store=path).identical(first)
    assert cases.sample("boxes", seed=first.attrs["seed"], store=path).identical(first)
    assert cases.sample("boxes", seed=first.attrs["seed"]).identical(first)
    with pytest.raises(ValueError, match=rf"seed \(kept {first.attrs['seed']}, now 5\)"):
        cases.sample("boxes", store=path)


@pytest.mark.usefixtures("eager")
def test_other_threads_are_told_only_where_the_run_goes_on(tmp_path, threads):
    path = tmp_path / "store"
    threads(1)
    with pytest.raises(Stop):
        cases.sample("boxes", loss_fn=stopped(Stop, 30), store=path)
    threads(2)
    with pytest.warns(UserWarning, match=r"goes on elsewhere .* threads \(kept 1, now 2\)"):
        cases.sample("boxes", store=path)
    cases.sample("boxes", store=path)


@pytest.mark.usefixtures("eager")
@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN"
)
@pytest.mark.parametrize("by_onednn", [True, False])
def test_products_are_those_that_the_run_began_with(by_onednn, tmp_path, monkeypatch):
    path, multiply = tmp_path / "store", Mock(wraps=products._multiply)
    monkeypatch.setattr(products, "_multiply", multiply)
    monkeypatch.setattr(products, "_PRODUCT", 0)
    monkeypatch.setattr(products, "_OPERATION", 0)
    monkeypatch.setattr(products, "_halved", lambda: by_onednn)
    with pytest.raises(Stop):
        cases.sample("momenta in place", loss_fn=stopped(Stop, 40), store=path)
    monkeypatch.setattr(products, "_halved", lambda: not by_onednn)
    multiply.reset_mock()
    trace = cases.sample("momenta in place", store=path)
    assert trace.attrs["products"] == ("oneDNN" if by_onednn else "torch")
    assert multiply.called is by_onednn


def test_second_process_is_refused(tmp_path):
    path = tmp_path / "store"
    child = start("vectorised", path, num_draws=10**6)
    for _ in range(600):
        if (path / "position.pt").exists():
            break
        time.sleep(0.05)
    with pytest.raises(OSError, match=rf"store .*got {path}: another process writes there"):
        cases.sample("vectorised", num_draws=10**6, store=path)
    child.kill()
    child.join()
    with pytest.warns(UserWarning, match="interrupted"):
        cases.sample(
            "vectorised", num_draws=10**6, store=path, loss_fn=stopped(KeyboardInterrupt, 500)
        )


@pytest.mark.parametrize("name", ["run.json", "position.pt"])
@pytest.mark.parametrize("left", [b"", b"abc"])
def test_a_damaged_file_is_named(name, left, tmp_path):
    """As a machine leaves it that loses power before what was written is on its disk."""
    path = tmp_path / "run"
    cases.sample("vectorised", store=path)
    (path / name).write_bytes(left)
    with pytest.raises(ValueError, match=rf"got .*{name} that is damaged \(.*\): remove the fol"):
        cases.sample("vectorised", store=path)


def test_foreign_folder_and_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=f"store must be a new folder .* {tmp_path} with other"):
        cases.sample("boxes", store=tmp_path)
    with pytest.raises(OSError, match=r"store must be a folder .*notes.txt: File exists"):
        cases.sample("boxes", store=tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def shared_folder():
    """A folder that somebody else may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def write_protect():
    """Takes the right to write; that of root by being somebody else."""
    changed = []

    def protect(folder):
        for path in [folder, *folder.rglob("*")]:
            changed.append((path, path.stat().st_mode))
            path.chmod(path.stat().st_mode & ~0o222)
        if os.geteuid() == 0:
            os.seteuid(65534)

    def undo():
        os.seteuid(os.getuid())
        while changed:
            path, mode = changed.pop()
            path.chmod(mode)

    yield protect, undo
    undo()


@pytest.mark.usefixtures("eager")
def test_read_only_folder(shared_folder, write_protect):
    complete, begun, new = (shared_folder / name for name in ("complete", "begun", "new"))
    whole = cases.sample("boxes", store=complete).load()
    with pytest.raises(Stop):
        cases.sample("boxes", loss_fn=stopped(Stop, 30), store=begun)
    protect, undo = write_protect
    protect(shared_folder)
    assert cases.sample("boxes", store=complete).identical(whole)
    for path in (begun, new):
        with pytest.raises(OSError, match=rf"store must be .*got {path}: Permission denied"):
            cases.sample("boxes", store=path)
    assert np.isfinite(cases.opened(begun)["steps/loss"]).any()
    undo()
    assert cases.sample("boxes", store=begun).identical(whole)


@pytest.fixture
def no_room():
    """Makes every file end after some bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("at", [0, *np.random.default_rng(1).integers(25, 80, 4)])
def test_full_disk(at, tmp_path, no_room):
    path = tmp_path / "store"
    whole = cases.sample("train mode")
    loss = counted(lambda call: no_room(50) if call == at else None)
    with pytest.raises(OSError, match=rf"store must be .*got {path}: File too large"):
        cases.sample("train mode", loss_fn=loss, store=path)
    no_room(resource.RLIM_INFINITY)
    if at:
        saved = cases.position(path)
        assert saved > (0, 0)
        done = np.isfinite(cases.opened(path)["steps/loss"].values)
        assert done.sum() >= saved[0] * 24 + saved[1]
    else:
        assert not (path / "position.pt").exists()
    assert cases.sample("train mode", store=path).identical(whole)
    assert not list(path.rglob("*.partial"))


class Odd(SGHMC):
    """Has a state that only code can read again."""

    def state_dict(self):
        return {**super().state_dict(), "odd": Stop()}


@pytest.mark.usefixtures("eager")
def test_state_that_cannot_be_read_again_is_refused_at_once(tmp_path):
    path = tmp_path / "store"
    with pytest.raises(TypeError, match="sampler must keep its state in tensors and plain"):
        cases.sample("momenta in place", sampler=Odd, store=path)
    assert cases.position(path) == (0, 0)


def test_without_zarr(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'fastllc\[store\]'"):
        cases.sample("boxes", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
