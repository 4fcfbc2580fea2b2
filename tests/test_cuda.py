"""Where the native module for CUDA comes from, and what is said where it does not."""

import sys

import pytest
import torch

import fake_device
import fastllc
from fastllc.kernels import cuda, functions

DEVICE = torch.device("cuda", 0)


@pytest.fixture
def module(monkeypatch):
    fake_device.install(monkeypatch, posing=False)
    yield sys.modules["fastllc._cuda"]
    cuda.load.cache_clear()


def test_nothing_is_imported_before_a_cuda_tensor_arrives(run_python):
    script = """
import sys, torch, fastllc
fastllc.build_info()
w = torch.zeros(3, requires_grad=True)
sampler = fastllc.SGLD([w], lr=0.1)
w.sum().backward()
sampler.step()
print("fastllc._cuda" in sys.modules)
"""
    done = run_python(script)
    assert done.stdout.split() == ["False"], done.stderr


def test_without_kernels_the_error_says_how_to_have_them(monkeypatch):
    monkeypatch.setattr(cuda, "built", lambda: False)
    with pytest.raises(RuntimeError) as caught:
        cuda.load(DEVICE)
    text = str(caught.value)
    for part in ("built without them", "FASTLLC_CUDA=ON", "fastllc.use_reference()"):
        assert part in text


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"driver": lambda: 0}, ["there is no NVIDIA driver"]),
        (
            {"driver": lambda: 12040},
            ["built with CUDA 13.0", "supports 12.4 at most", "update the driver"],
        ),
        ({"VERSION": "0.0"}, ["they are of version 0.0", "FASTLLC_CUDA=ON"]),
        ({"NOISE_FORMAT": 2}, ["they are of version"]),
        (
            {"ARCHITECTURES": "100 120"},
            ["compute capability 10.0 and newer, cuda:0 has 9.0", "CMAKE_CUDA_ARCHITECTURES"],
        ),
    ],
)
def test_kernels_that_cannot_run_here_are_refused(module, monkeypatch, change, parts):
    for name, value in change.items():
        monkeypatch.setattr(module, name, value)
    for _ in range(2):  # an error is not remembered as an answer
        with pytest.raises(RuntimeError) as caught:
            cuda.load(DEVICE)
        for part in (*parts, "fastllc.use_reference()"):
            assert part in str(caught.value)


def test_a_driver_of_the_same_major_version_is_new_enough(module, monkeypatch):
    monkeypatch.setattr(module, "RUNTIME", 13020)
    monkeypatch.setattr(module, "driver", lambda: 13000)
    assert cuda.load(DEVICE) is module


def test_a_module_that_cannot_be_loaded_says_why(monkeypatch):
    monkeypatch.setattr(cuda, "built", lambda: True)
    monkeypatch.setitem(sys.modules, "fastllc._cuda", None)
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        cuda.load(DEVICE)


def test_torch_for_other_devices_is_refused(module, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.0")
    with pytest.raises(RuntimeError, match="for AMD devices"):
        cuda.load(DEVICE)


def test_facts(module, monkeypatch):
    found = cuda.facts()
    assert found["cuda_kernels"] == "built"
    assert found["cuda_runtime"] == "13.0"
    assert found["cuda_driver"] == "13.1"
    assert found["cuda_architectures"] == "75 80 90a 120"
    monkeypatch.setattr(module, "driver", lambda: 0)
    assert cuda.facts()["cuda_kernels"].startswith("built, but cannot run: there is no NVIDIA")
    assert cuda.facts()["cuda_driver"] == "none"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "H200")
    assert cuda.facts()["cuda_devices"] == "H200 (9.0)"


def test_facts_without_kernels(monkeypatch):
    monkeypatch.setattr(cuda, "built", lambda: False)
    assert cuda.facts()["cuda_kernels"] == "not built"
    monkeypatch.setattr(cuda, "built", lambda: True)
    monkeypatch.setitem(sys.modules, "fastllc._cuda", None)
    assert cuda.facts()["cuda_kernels"] == "built, but cannot be loaded"


def test_a_sampler_of_tensors_without_kernels_is_refused_when_it_is_made(monkeypatch):
    monkeypatch.setattr(functions, "on_device", lambda tensor: True)
    monkeypatch.setattr(cuda, "built", lambda: False)
    with pytest.raises(RuntimeError, match="tensors on a CUDA device need kernels"):
        fastllc.SGLD([torch.zeros(2, requires_grad=True)])
    with pytest.raises(RuntimeError, match="tensors on a CUDA device need kernels"):
        fastllc.standard_normal(3, seed=0)


def test_the_reference_is_asked_for(monkeypatch):
    w = torch.zeros(5, requires_grad=True)
    native = torch.zeros(5, requires_grad=True)
    monkeypatch.setattr(functions, "_reference", False)
    theirs = fastllc.SGLD([native], lr=0.1, seed=3)
    fastllc.use_reference()
    with pytest.warns(UserWarning, match="steps run the PyTorch reference"):
        ours = fastllc.SGLD([w], lr=0.1, seed=3)
    for param, sampler in ((w, ours), (native, theirs)):
        param.grad = torch.ones(5)
        sampler.step()
    assert ours._plan.segments is None
    assert torch.equal(w, native)
    fastllc.use_reference(False)
    fastllc.SGLD([w], lr=0.1)
