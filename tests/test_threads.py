"""Threads, forks and floating-point modes change nothing."""

import ctypes
import platform
import sys
import threading
import time

import pytest
import torch

from fastllc import SGLD, localization_penalty_and_grad, standard_normal

SHAPES = [(300_001,), (70,), (257, 300), ()]


def make(dtype=torch.float32, shapes=SHAPES, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = []
    for shape in shapes:
        param = torch.randn(shape, dtype=dtype, generator=generator) * scale
        param.grad = torch.randn(shape, dtype=dtype, generator=generator) * scale
        params.append(param)
    return params


def as_bytes(tensors):
    return [t.detach().contiguous().numpy().tobytes() for t in tensors]


def sample(seed, steps=3, dtype=torch.float32, **options):
    params = make(dtype, seed=seed)
    sampler = SGLD(
        params, lr=0.1, localization=1.0, weight_decay=0.1, save_metrics=True, seed=seed, **options
    )
    for _ in range(steps):
        sampler.step()
    return as_bytes(params), [x.item() for x in sampler.get_metrics()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_number_of_threads_gives_the_same_bits(threads, dtype):
    results = []
    for n in (1, 2, 3, 7, 2, 1):
        threads(n)
        results.append(sample(1, dtype=dtype))
        assert torch.get_num_threads() == n
    assert all(r == results[0] for r in results[1:])


def test_the_number_of_threads_may_change_between_steps(threads):
    wanted = sample(2, steps=6)
    params = make(seed=2)
    sampler = SGLD(params, lr=0.1, localization=1.0, weight_decay=0.1, save_metrics=True, seed=2)
    for n in (2, 1, 5, 1, 2, 3):
        threads(n)
        sampler.step()
    assert (as_bytes(params), [x.item() for x in sampler.get_metrics()]) == wanted


@pytest.mark.parametrize("n_threads", [1, 2])
def test_samplers_in_many_python_threads(threads, n_threads):
    threads(n_threads)
    wanted = [sample(seed, steps=12) for seed in range(5)]
    results = [None] * 5
    errors = []
    start = threading.Barrier(5)

    def work(seed):
        try:
            torch.set_num_threads(n_threads)  # in some builds a setting of each thread
            start.wait()
            results[seed] = sample(seed, steps=12)
            standard_normal(100_000, seed=seed)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not errors
    assert results == wanted


def test_other_python_threads_run_during_a_step():
    """With a switch interval of a minute they get a turn only where a step releases the lock."""
    param = torch.zeros(4_000_000)
    param.grad = torch.zeros_like(param)
    sampler = SGLD([param], seed=0)
    sampler.step()
    ticks, done = [0], [False]

    def count():
        while not done[0]:
            ticks[0] += 1
            time.sleep(0)

    before = sys.getswitchinterval()
    worker = threading.Thread(target=count)
    during = 0
    try:
        sys.setswitchinterval(60)
        worker.start()
        for _ in range(20):
            start = ticks[0]
            sampler.step()
            during += ticks[0] - start
    finally:
        done[0] = True
        sys.setswitchinterval(before)
        worker.join(60)
    assert during >= 5


FORKS = """
import os, signal, sys, threading, time, warnings
import torch
from fastllc import SGLD, standard_normal
warnings.simplefilter("ignore", DeprecationWarning)  # of Python, for forks beside threads
torch.set_num_threads(2)

def make(n=200_000):
    p = torch.linspace(-1, 1, n)
    p.grad = torch.linspace(1, -1, n)
    return p, SGLD([p], localization=1.0, save_metrics=True, seed=5)

def wait(child, what):
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, (what, status)

def in_child(work, what):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a hang is killed
        try:
            ok = work()
        except BaseException as error:
            print(error, file=sys.stderr)
            ok = False
        os._exit(0 if ok else 1)
    return child

def bits(t):
    return t.numpy().tobytes()

# what two and three steps give
p, s = make()
s.step(); s.step(); two = bits(p); s.step(); three = bits(p)

# a child goes on with its parent's sampler, and so does its own child
p, s = make()
s.step(); s.step()

def go_on():
    s.step()
    mine = bits(p) == three
    grandchild = in_child(lambda: (s.step(), True)[1], "grandchild")
    wait(grandchild, "grandchild")
    return mine

children = [in_child(go_on, "child") for _ in range(3)]
for child in children:
    wait(child, "child")
assert bits(p) == two, "a child wrote into its parent"
s.step()
assert bits(p) == three
assert torch.get_num_threads() == 2

# a fork in the middle of another thread's steps
stop = False
counted = [0]

def keep_stepping():
    _, other = make(500_000)
    while not stop:
        other.step()
        counted[0] += 1

q, t = make()  # here, since torch's own threads do not survive a fork

def anew():
    t.step(); t.step()
    return bits(q) == two

worker = threading.Thread(target=keep_stepping, daemon=True)  # so that failures end
worker.start()
while not counted[0]:
    time.sleep(0.001)
for i in range(25):
    child = in_child(anew, i)
    time.sleep(0.0007 * (i % 5))
    wait(child, ("busy", i))
steps = counted[0]
while counted[0] < steps + 3:
    time.sleep(0.001)  # the worker is alive
stop = True
worker.join()
print("forks done")
"""


@pytest.mark.skipif(not hasattr(sys, "platform") or sys.platform == "win32", reason="no fork")
def test_forks(run_python):
    done = run_python(FORKS)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert "forks done" in done.stdout


# ---------------------------------------------------------------- floating-point modes


@pytest.fixture
def flush_to_zero():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    torch.set_flush_denormal(False)
    yield torch.set_flush_denormal
    torch.set_flush_denormal(False)


def subnormal(dtype, n, **options):
    """A step in which weights, gradients, noise and sums are subnormal."""
    tiny = torch.finfo(dtype).tiny
    (param,) = make(dtype, [(n,)])
    grad = param.grad
    param = param * tiny * 0.1
    param.grad = grad * tiny * 0.1
    sampler = SGLD(
        [param], lr=0.25, localization=0.5, noise_level=tiny / 8, save_metrics=True, seed=1,
        **options,
    )  # fmt: skip
    return param, sampler


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [5, 1000, 200_000])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.3}, {"bounding_box_size": "tiny"}], ids=str
)
def test_flushing_denormals_changes_no_bit(flush_to_zero, threads, dtype, n, n_threads, options):
    threads(n_threads)
    if "bounding_box_size" in options:
        if dtype == torch.float64:  # Python's own numbers are flushed then
            pytest.skip("a box of a subnormal double")
        options = {"bounding_box_size": torch.finfo(dtype).tiny / 16}
    results = []
    for flush in (False, True):
        param, sampler = subnormal(dtype, n, **options)
        probe = torch.full((4,), torch.finfo(dtype).tiny / 2, dtype=dtype)
        flush_to_zero(flush)
        sampler.step()
        sampler.step()
        # the caller's own mode is still what it was
        flushed = (probe * 1.0).numpy().tobytes() == bytes(probe.nbytes)
        flush_to_zero(False)
        assert flushed == flush
        results.append(as_bytes([param]))
        assert ((param != 0) & (param.abs() < torch.finfo(dtype).tiny)).float().mean() > 0.5
    assert results[0] == results[1]


def test_flushing_denormals_leaves_the_penalty(flush_to_zero):
    """Its squares and gradients are subnormal in single precision."""
    w, w0 = torch.full((300,), 2e-20), torch.zeros(300)
    results = []
    for flush in (False, True):
        flush_to_zero(flush)
        value, grads = localization_penalty_and_grad([w], [w0], 1e-20)
        flush_to_zero(False)
        results.append(as_bytes([value, *grads]))
        assert torch.equal(grads[0], w * 1e-20)
        assert grads[0][0] > 0
    assert results[0] == results[1]


def test_flushing_denormals_changes_no_noise(flush_to_zero):
    results = []
    for flush in (False, True):
        flush_to_zero(flush)
        z = [standard_normal(100_000, seed=1, dtype=d) for d in (torch.float32, torch.float64)]
        flush_to_zero(False)
        results.append(as_bytes(z))
    assert results[0] == results[1]


@pytest.mark.skipif(
    not (sys.platform == "linux" and platform.machine() == "x86_64"), reason="fesetround of glibc"
)
@pytest.mark.parametrize("mode", [0x400, 0x800, 0xC00], ids=["down", "up", "to zero"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_callers_rounding_mode_changes_no_bit(threads, mode, n_threads):
    threads(n_threads)
    libm = ctypes.CDLL("libm.so.6")
    results = []
    for rounding in (0, mode):
        params = make(torch.float32)
        sampler = SGLD(params, lr=0.1, localization=1.0, weight_decay=0.1, seed=3)
        assert libm.fesetround(rounding) == 0
        try:
            sampler.step()
            sampler.step()
            z = standard_normal(1000, seed=1, dtype=torch.float64)
            kept = libm.fegetround()
        finally:
            libm.fesetround(0)
        assert kept == rounding
        results.append(as_bytes([*params, z]))
    assert results[0] == results[1]
