"""The same bits from every instruction set, and a clear word about any other."""

import hashlib

import pytest
import torch

import fastllc
from conftest import supported_instruction_sets

SCRIPT = """
import hashlib, torch, fastllc

def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]

def report(dtype):
    noise = fastllc.standard_normal(2**20, seed=2026, step=5, param=9, dtype=dtype)
    print("noise", dtype, digest(noise))
    torch.manual_seed(0)
    shapes = [(300, 301), (7,), (), (0,), (65,)]
    w = [torch.randint(-999, 999, s).to(dtype).div(512).requires_grad_() for s in shapes]
    sampler = fastllc.SGLD(
        w, lr=1e-2, nbeta=3.0, localization=0.5, weight_decay=0.1, bounding_box_size=0.5,
        save_metrics=True, seed=11,
    )
    for _ in range(5):
        for p in w:
            p.grad = torch.randint(-999, 999, p.shape).to(dtype).div(256)
        sampler.step()
    print("weights", dtype, digest(torch.cat([p.detach().flatten() for p in w])))
    print("metrics", dtype, digest(torch.stack(list(sampler.get_metrics()))))
    value = fastllc.localization_penalty(w, [torch.zeros_like(p) for p in w], 2.0)
    value.backward()
    print("penalty", dtype, digest(value.detach().reshape(1)), digest(w[0].grad))

for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    report(torch.float32)
    report(torch.float64)
print(fastllc.build_info()["simd"])
"""

# Recorded once with format 1. They change only with a new noise format (csrc/noise.h).
GOLDEN = """\
noise torch.float32 ef071e369ce06259
weights torch.float32 7509d68711bdb2de
metrics torch.float32 3444b5719dd73d86
penalty torch.float32 9dc3389274871935 9af82d9eb6485136
noise torch.float64 de691085976b7fbd
weights torch.float64 a9eb5e3af4d7aaec
metrics torch.float64 53ac55f2b8037325
penalty torch.float64 09cfff827152750b 650b96699c32934e
"""


@pytest.mark.parametrize("isa", supported_instruction_sets())
def test_golden_hashes_for_one_to_three_threads(run_python, isa):
    done = run_python(SCRIPT, FASTLLC_SIMD=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 3 * GOLDEN + isa + "\n"


@pytest.mark.parametrize("value", ["sse9", "AVX2", "avx512 "])
def test_an_unknown_instruction_set_is_an_error(run_python, value):
    done = run_python("import fastllc; fastllc.standard_normal(3, seed=0)", FASTLLC_SIMD=value)
    assert done.returncode == 1
    assert "FASTLLC_SIMD must be one that this machine supports" in done.stderr
    assert f"got '{value}'" in done.stderr


def test_an_empty_variable_is_no_choice(run_python):
    done = run_python("import fastllc; print(fastllc.build_info()['simd'])", FASTLLC_SIMD="")
    assert done.stdout.strip() == supported_instruction_sets()[-1]


def test_golden_noise_is_that_of_the_reference():
    """The hashes above are of the right numbers, not only of equal ones."""
    from fastllc import reference

    z = reference.standard_normal(2**20, seed=2026, step=5, param=9)
    digest = hashlib.sha256(z.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    assert f"noise torch.float32 {digest}\n" in GOLDEN
    assert torch.equal(z, fastllc.standard_normal(2**20, seed=2026, step=5, param=9))
