"""The same bits from every instruction set, and a clear word about any other."""

import hashlib

import pytest
import torch

import fastllc
from conftest import supported_instruction_sets
from golden import GOLDEN, SCRIPT


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
