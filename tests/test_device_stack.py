"""Whole runs on a device: the CPU's bits, lost chains too, and no step that waits."""

import types

import pytest
import torch

from engine import SHORT, assert_same
from fake_device import no_waiting, patient
from fastllc import SGNHT, DivergenceWarning, Sampling
from fastllc.engine import inplace
from fastllc.engine.job import Job
from fastllc.engine.record import Record, Series
from fastllc.engine.vectorised import VectorisedWalkers
from fastllc.engine.watch import Watch
from fastllc.samplers.device_stack import DeviceStack
from test_loop import cliff, spoilt
from zoo import Case, Point, case

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
DATA = torch.zeros(4, 1), torch.zeros(4)
# What is done once for many steps, and what numpy does for tensors of the CPU; and what is done at
# each step, and may not wait.
WAITING = [(Series, "flush"), (Series, "append"), (Watch, "_fetch"), (Watch, "_tell")]
STEPS = {
    VectorisedWalkers: ("gradient", "move", "alive", "metrics"),
    inplace.InPlaceWalkers: ("move", "alive", "metrics"),
    Record: ("append",),
    Watch: ("see", "count"),
}


@pytest.fixture
def run_there(device, monkeypatch):
    """Runs on the device, where walkers say so, with steps that may not wait."""

    def without_waiting(method):
        def call(*args, **kwargs):
            with no_waiting():
                return method(*args, **kwargs)

        return call

    walkers = Job.walkers

    def posing(self, box):
        found = walkers(self, box)
        found.device = types.SimpleNamespace(type="cuda")
        return found

    def run(made, **settings):
        with monkeypatch.context() as patched:
            patched.setattr(Job, "walkers", posing)
            for kind, name in WAITING:
                patched.setattr(kind, name, patient(getattr(kind, name)))
            for kind, names in STEPS.items():
                for name in names:
                    patched.setattr(kind, name, without_waiting(getattr(kind, name)))
            patched.setattr(inplace, "_seed", lambda device, seed: torch.manual_seed(seed))
            return Sampling(**{**SHORT, "batch_size": 4, **settings}).run(**made.fit)

    return run


def run_here(monkeypatch, made, **settings):
    from fastllc import kernels
    from fastllc.engine import vectorised
    from fastllc.kernels import functions
    from fastllc.samplers import metrics

    with monkeypatch.context() as patched:
        for where in (functions, kernels, metrics, vectorised):
            patched.setattr(where, "on_device", lambda tensor: False)
        return Sampling(**{**SHORT, "batch_size": 4, **settings}).run(**made.fit)


@ENGINES
def test_runs_are_those_of_the_cpu(run_there, device, monkeypatch, kind, engine):
    settings = {"engine": engine, "sampler": kind, "save_metrics": True, "num_draws": 130}
    found = run_there(case("mlp"), **settings)
    assert len(device.runs) >= 130
    assert_same(found, run_here(monkeypatch, case("mlp"), **settings))


@ENGINES
@pytest.mark.parametrize("loss", [cliff, spoilt])
def test_lost_chains_are_those_of_the_cpu(run_there, monkeypatch, engine, loss):
    made = Case(Point(torch.zeros(3)), DATA, None, loss(0.62))
    settings = {
        "engine": engine,
        "lr": 0.02,
        "localization": 1.0,
        "num_chains": 8,
        "num_draws": 110,
        "init_loss": 0.0,
        "save_metrics": True,
        "observables": {"all": DATA},
    }
    with pytest.warns(DivergenceWarning, match="chains diverged"):
        found = run_there(made, **settings)
    with pytest.warns(DivergenceWarning, match="chains diverged"):
        wanted = run_here(monkeypatch, made, **settings)
    lost = wanted["diverged_at"].values
    assert (lost >= 0).any()
    assert (lost < 0).any()
    assert_same(found, wanted)


def test_a_stored_run_goes_on(run_there, monkeypatch, tmp_path):
    pytest.importorskip("zarr")
    settings = {
        "engine": "vectorised",
        "sampler": SGNHT,
        "num_draws": 60,
        "seed": 3,
    }
    wanted = run_here(monkeypatch, case("mlp"), **settings)
    stop = [25]
    step = DeviceStack.step

    def interrupted(self, *args):
        stop[0] -= 1
        if stop[0] == 0:
            raise RuntimeError("pulled the plug")
        return step(self, *args)

    monkeypatch.setattr("fastllc.engine.loop._TICK_SECONDS", 0.0)
    monkeypatch.setattr("fastllc.engine.store.Store.due", lambda self: True)
    monkeypatch.setattr(DeviceStack, "step", interrupted)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        run_there(case("mlp"), store=tmp_path / "run", **settings)
    monkeypatch.setattr(DeviceStack, "step", step)
    assert_same(run_there(case("mlp"), store=tmp_path / "run", **settings), wanted)
