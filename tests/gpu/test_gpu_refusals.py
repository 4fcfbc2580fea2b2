"""What native code refuses before it launches anything."""

import pytest
import torch

import fastllc
from fastllc._core import Rule
from fastllc.kernels import Chains, DeviceSegments, Member, Setting, cuda
from gpu import DEVICE, NEEDS_GPU

pytestmark = NEEDS_GPU


def opened():
    w = torch.zeros(100, device=DEVICE)
    segments = DeviceSegments([Member(w, id=0)], Rule.sgld, Chains(1, DEVICE))
    segments.bind([torch.ones_like(w)])
    segments.step([[Setting(0.1)]], [0], [0], moments=True)
    segments.bind([torch.ones_like(w)])
    return w, segments


@pytest.mark.parametrize("argument", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("bad", ["host", "null"])
def test_tables_that_are_not_on_the_device(argument, bad):
    w, segments = opened()
    host = torch.zeros(4096, dtype=torch.float64)
    arguments = list(segments._fixed)
    arguments[argument] = host.data_ptr() if bad == "host" else 0
    if argument == 3 and bad == "null":
        return  # no moments are wanted
    before = w.clone()
    with pytest.raises(ValueError, match=r"\w"):
        segments._native.run(torch.cuda.current_stream().cuda_stream, *arguments)
    torch.cuda.synchronize()
    assert torch.equal(w, before)


@pytest.mark.parametrize("name", ["w", "grad", "w0", "mask"])
def test_tensors_of_the_host(name):
    w, segments = opened()
    host = torch.zeros(100)
    segments._table[name] = host.data_ptr()
    before = w.clone()
    with pytest.raises(ValueError, match=r"\w"):
        segments._native.run(torch.cuda.current_stream().cuda_stream, *segments._fixed)
    torch.cuda.synchronize()
    assert torch.equal(w, before)


def test_samplers_of_two_devices():
    params = [torch.zeros(3, device=DEVICE).requires_grad_(), torch.zeros(3).requires_grad_()]
    with pytest.raises(ValueError, match="must be on cuda:0 like params"):
        fastllc.SGLD(params)
    with pytest.raises(ValueError, match=r"mask\[0\] must be on cuda:0, got cpu"):
        fastllc.SGLD(params[:1], mask=[torch.ones(3, dtype=torch.bool)])


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn, torch.complex64])
def test_types(dtype):
    with pytest.raises(TypeError, match="must be one of float32"):
        fastllc.SGLD([torch.zeros(3, device=DEVICE).to(dtype)])


def test_another_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    other = torch.device("cuda", 1)
    w = torch.zeros(100, device=other, requires_grad=True)
    sampler = fastllc.SGLD([w], lr=0.1, seed=3)
    w.grad = torch.ones_like(w)
    sampler.step()  # device 0 is torch's current one, before and after
    assert torch.cuda.current_device() == 0
    here = torch.zeros(100, requires_grad=True)
    check = fastllc.SGLD([here], lr=0.1, seed=3)
    here.grad = torch.ones_like(here)
    check.step()
    assert torch.equal(w.detach().cpu(), here.detach())
    module = cuda.load(other)
    step = module.Step(0, sampler._plan.segments._table, 1, 1, 0)  # of device 0
    with pytest.raises(ValueError, match=r"\w"):
        step.run(torch.cuda.current_stream().cuda_stream, *sampler._plan.segments._fixed)
