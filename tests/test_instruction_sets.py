"""The same bits from every instruction set, and a clear word about any other."""

import hashlib

import pytest
import torch

import fastllc
from conftest import supported_instruction_sets

SCRIPT = """
import hashlib, torch, fastllc

OWN = {
    "SGLD": {}, "RMSpropSGLD": {"adapt_steps": 3}, "AdamSGLD": {"adapt_steps": 3},
    "SGHMC": {"friction": 0.3}, "SGNHT": {"diffusion_factor": 0.1},
    "BAOAB": {"friction": 0.3},
}
SHAPES = [(120, 301), (7,), (), (0,), (65,)]

def digest(*tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]

def numbers(shape, dtype, scale):
    return torch.randint(-999, 999, shape).to(torch.float64).div(scale).to(dtype)

def walk(name, dtype, masked=False, rounding="exact"):
    torch.manual_seed(0)
    w = [numbers(s, dtype, 512).requires_grad_() for s in SHAPES]
    on = [torch.rand(s) < 0.5 for s in SHAPES]
    on[0][:40] &= torch.rand(40, 301) < 0.03  # sparse, then half, then whole rows
    on[0][80:] = torch.arange(40)[:, None] % 3 > 0
    sampler = getattr(fastllc, name)(
        w, lr=1e-2, nbeta=3.0, localization=0.5, weight_decay=0.1, bounding_box_size=0.5,
        mask=on if masked else None, rounding=rounding, save_metrics=True, seed=11, **OWN[name],
    )
    kept, metrics = [], []
    for _ in range(5):
        for p in w:
            p.grad = numbers(p.shape, dtype, 256)
        sampler.step()
        metrics.append(torch.stack(list(sampler.get_metrics())))
    for p, mask in zip(w, on):
        state = [sampler.state[p].get(name) for name in ("momentum", "square_avg", "residual")]
        kept += [x[mask] if masked else x for x in state if x is not None]
    thermostat = torch.tensor([getattr(sampler, "thermostat", 0.0)], dtype=torch.float64)
    return digest(*w, *kept, *metrics, thermostat)

def report():
    for dtype in (torch.float32, torch.float64):
        noise = fastllc.standard_normal(2**20, seed=2026, step=5, param=9, dtype=dtype)
        print("noise", dtype, digest(noise))
        torch.manual_seed(0)
        w = [numbers(s, dtype, 512).requires_grad_() for s in SHAPES]
        value = fastllc.localization_penalty(w, [torch.zeros_like(p) for p in w], 2.0)
        value.backward()
        print("penalty", dtype, digest(value.reshape(1), w[0].grad))
    for name in OWN:
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            found = [walk(name, dtype), walk(name, dtype, masked=True)]
            if dtype.itemsize == 2:
                found.append(walk(name, dtype, masked=True, rounding="stochastic"))
            print(name, dtype, *found)

for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    report()
print(fastllc.build_info()["simd"])
"""

# Noise: recorded once with format 1, and changes only with a new one (csrc/noise.h). Samplers:
# weights, state, metrics and thermostat after five steps of all elements, of masked ones, and of
# those rounded at random; they change with the equations and with the order of sums (moments.h).
GOLDEN = """\
noise torch.float32 ef071e369ce06259
penalty torch.float32 67d8f499609835f0
noise torch.float64 de691085976b7fbd
penalty torch.float64 8646f2da31d9c928
SGLD torch.float32 1bf82c2a5eac4309 25d0c0b341a00995
SGLD torch.float64 0cd91a9721c5dee9 586cce6c838000bb
SGLD torch.bfloat16 2fd7da2f5958cbca 84068aa32ef281ab 56a077c13654a5d2
SGLD torch.float16 fbb02d663add5396 653376107a1bec83 bdd9df31cc49f1f5
RMSpropSGLD torch.float32 a191e81a3d842468 dcf4bfe23202139a
RMSpropSGLD torch.float64 56fc98eab1300a38 6e2b41656ec55cc9
RMSpropSGLD torch.bfloat16 cbe166df63f1a8d6 76e9ae3d3441e073 727342dc7bcc8fc2
RMSpropSGLD torch.float16 f09885204568135b 43d75523f6085eb4 f1e2eccfe3a2c4b5
AdamSGLD torch.float32 01b2b3b6e3083df1 7576fb910a919b6f
AdamSGLD torch.float64 4d264cb999ba3328 234863bbad51fb2f
AdamSGLD torch.bfloat16 866d6f075bd2ed29 a6df79290b7f5b01 cd799e2c10354214
AdamSGLD torch.float16 0d9019bdcb1bc9c0 95243fb2a8f17862 45d2dcd211133978
SGHMC torch.float32 6f94d0bb4ac8b64c 016725b6839b6743
SGHMC torch.float64 b292cabe16c2e7ae 65766b9b0bd19cc4
SGHMC torch.bfloat16 45af393293ad315b b82ef04c129c930e 0fe3b9b2da626976
SGHMC torch.float16 0573c5fddeac2d2c aa6e3b80915f63c0 b93c61dca84a9066
SGNHT torch.float32 327b0252bc4f47c9 a33f9094265ed921
SGNHT torch.float64 a23938f6f29b7b42 8173c1dbf157b533
SGNHT torch.bfloat16 361423828387194d b1812959c9d7a209 bafd321bf93e299b
SGNHT torch.float16 9cd849aa28452a16 d13ff66d48d9796c 0f2cf82b6ed5352a
BAOAB torch.float32 f56bbd1381821053 da0dbba0df87bef4
BAOAB torch.float64 7853838720805ca5 1316263f78baab14
BAOAB torch.bfloat16 572f75b9089113ab 7a05cef9ddbee1c2 0b0238091ef14275
BAOAB torch.float16 284c9d4a2249dff8 cfa60ab7e04e7601 d14fb637ffe95246
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
