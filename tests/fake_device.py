"""A device that is none: kernels for CUDA played over tensors of the CPU.

They are played by their emulation where it has been built, and by the CPU core, whose steps they
must be, with what the device does besides written in Python.

What Python asks of the device is written down, so that tests see what was uploaded and launched.
"""

import contextlib
import ctypes
import importlib.util
import sys
import types

import numpy as np
import torch

from fastllc import _core, kernels
from fastllc.engine import vectorised
from fastllc.kernels import cuda, functions, streams
from fastllc.samplers import metrics

SYNCHRONISING = ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__")


def _at(address, dtype, shape):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


class Device:
    """What was asked of the device, and what it answers.

    Attributes
    ----------
    uploads : what was uploaded, in words
    buffers : what room was made for
    runs : the arguments of each step that was launched
    held : tensors kept for a stream
    stream : handle of the current stream
    recording : whether a graph is captured
    graph : the steps in it, to be called
    late : whether copies to the host take until `arrive`
    """

    def __init__(self):
        self.uploads, self.buffers, self.runs, self.held, self.graph = [], [], [], [], []
        self.fetched = []
        self.stream, self.recording, self.late = 7, False, False

    def replay(self):
        for step in self.graph:
            step()

    def forget(self):
        for log in (self.uploads, self.buffers, self.runs, self.held):
            log.clear()


def players():
    """Who can play the kernels."""
    return ["core", *(["emulated"] if importlib.util.find_spec("fastllc._emulated") else [])]


def _module(device, player):
    class Step:
        def __init__(self, rule, segments, n_chains, n_groups, index):
            assert type(rule) is int
            assert segments.dtype == _core.SEGMENT
            self.rule, self.segments, self.index = _core.Rule(rule), segments, index
            self.shape = n_groups, n_chains

        def emulated(self, segments):
            from fastllc import _emulated

            groups, chains = self.shape
            return _emulated.Step(int(self.rule), segments, chains, groups)

        def workspace(self, moments, dim):
            if player == "emulated":
                return self.emulated(self.segments).workspace(moments, dim)
            return 64 * (1 + moments) + 8 * dim

        def run(self, stream, *arguments):
            device.runs.append((stream, *arguments))
            # A graph keeps the addresses, as they are passed by value.
            segments = self.segments.copy()
            if device.recording:
                device.graph.append(lambda: self.take(segments, *arguments))
            else:
                self.take(segments, *arguments)

        def take(self, segments, chains, settings, nonfinite, moments, sketches, dim, seed, work):
            assert work
            if player == "emulated":
                tables = chains, settings, nonfinite, moments, sketches
                self.emulated(segments).run(len(device.runs), *tables, dim, seed, work)
                return
            assert (segments["grad"][segments["numel"] > 0] != 0).all()
            (groups, k), s = self.shape, len(segments)
            rows = _at(chains, _core.CHAIN, (k,))
            moving = rows["active"] > 0
            state = rows.copy()
            state["active"] = moving
            sums, counts = np.zeros((k, s, len(_core.MOMENTS))), np.zeros((k, s), np.int64)
            given = _at(settings, _core.SETTING, (groups, k)).copy()
            tables = _core.StepTables(self.rule, segments, state, given, sums, counts)
            sketched = np.zeros((k, len(_core.COMPONENTS), max(1, dim)))
            if dim:
                tables.sketch(sketched, seed)
            tables.run(bool(moments), 1)
            for address, found in ((nonfinite, counts), (moments, sums), (sketches, sketched)):
                if address:
                    _at(address, found.dtype, found.shape)[moving] = found[moving]
            lost = moving & counts.any(1) & (rows["active"] == 1)
            rows["step"] += moving
            rows["thermostat"][moving] = state["thermostat"][moving]
            rows["active"][lost] = 0

    def standard_normal(dtype, out, numel, first, key, step, param, index, stream):
        device.runs.append((stream, "normal"))
        _core.standard_normal(_core.DType(dtype), out, numel, first, key, step, param, 1)

    def penalty(dtype, pairs, strength, index, stream, result, workspace):
        assert workspace
        device.runs.append((stream, "penalty"))
        value = _core.localization_penalty(_core.DType(dtype), pairs, strength, 1)
        _at(result, np.float64, (1,))[0] = value

    module = types.ModuleType("fastllc._cuda")
    module.VERSION, module.NOISE_FORMAT = _core.VERSION, _core.NOISE_FORMAT
    module.RUNTIME, module.ARCHITECTURES, module.COMPILER = 13000, "75 80 90a 120", "nvcc 13.0"
    module.driver = lambda: 13010
    module.Step, module.standard_normal = Step, standard_normal
    module.localization_penalty = penalty
    module.localization_workspace = lambda dtype, pairs: 8
    return module


def install(monkeypatch, player="core", *, posing=True):
    """Let tensors of the CPU pose as those of a device with kernels; return the `Device`."""
    device = Device()
    module = _module(device, player)
    cuda.load.cache_clear()
    monkeypatch.setitem(sys.modules, "fastllc._cuda", module)
    monkeypatch.setattr(cuda, "built", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    if not posing:
        return device
    for where in (functions, kernels, metrics, vectorised):
        monkeypatch.setattr(where, "on_device", lambda tensor: tensor.device.type == "cpu")

    refuse, plain_zeros = streams._refuse, torch.zeros

    def upload(target, values, what):
        refuse(what)
        device.uploads.append(what)
        target.copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def buffer(shape, dtype, where, what):
        refuse(what)
        device.buffers.append(what)
        return plain_zeros(shape, dtype=dtype, device=where)

    class Fetched:
        def __init__(self, tensors):
            refuse("a question to it")
            self.tensors = [tensor.detach().clone() for tensor in tensors]
            self.there = not device.late
            device.fetched.append(self)

        def arrived(self):
            assert not device.recording
            return self.there

        def wait(self):
            for tensor in self.tensors:
                tensor.on_host = True
            return self.tensors

    monkeypatch.setattr(streams, "guard", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(streams, "current_stream", lambda _: device.stream)
    monkeypatch.setattr(streams, "capturing", lambda: device.recording)
    monkeypatch.setattr(streams, "upload", upload)
    monkeypatch.setattr(streams, "buffer", buffer)
    monkeypatch.setattr(streams, "hold", device.held.append)
    monkeypatch.setattr(streams, "Fetched", Fetched)
    return device


_patience = []


def patient(function):
    """A function that may wait, also inside `no_waiting`."""

    def call(*args, **kwargs):
        _patience.append(function)
        try:
            return function(*args, **kwargs)
        finally:
            _patience.pop()

    return call


@contextlib.contextmanager
def no_waiting():
    """Raise where the values of a tensor are read, other than those that came to the host."""

    def guarded(read):
        def refuse(self, *args, **kwargs):
            assert _patience or getattr(self, "on_host", False), "this waits for the device"
            return read(self, *args, **kwargs)

        return refuse

    with contextlib.ExitStack() as stack:
        for name in SYNCHRONISING:
            kept = getattr(torch.Tensor, name)
            setattr(torch.Tensor, name, guarded(kept))
            stack.callback(setattr, torch.Tensor, name, kept)
        yield
