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
SGLD torch.float32 14e281fa8be50d88 7afa157289474912
SGLD torch.float64 0cd91a9721c5dee9 586cce6c838000bb
SGLD torch.bfloat16 fa47fc57d760950c 1f2c8275a4d9b1c6 17ac722e447e9bfc
SGLD torch.float16 1b408460f22d975f be5bdedfe3d113e3 04435c04deeb3ff6
RMSpropSGLD torch.float32 f0f626bc20b6c263 89d5244967b932e3
RMSpropSGLD torch.float64 56fc98eab1300a38 6e2b41656ec55cc9
RMSpropSGLD torch.bfloat16 a50cecbe5fd86bd1 fc28aeee254b6a93 aae75cc63568f22b
RMSpropSGLD torch.float16 8e5041ddbb6da7c6 4446d9fad6561994 733fb02ccd8f2de9
AdamSGLD torch.float32 cbee0da579dd6995 a90c94faad5d9429
AdamSGLD torch.float64 4d264cb999ba3328 234863bbad51fb2f
AdamSGLD torch.bfloat16 07b471fb7044233b 6bd7fd2e7fcc0ae4 4dd901b14ad79d8a
AdamSGLD torch.float16 1f30aef02ca16f7e 0a3635c77e7d620f a6fc3e0dd65e814d
SGHMC torch.float32 e1d88b880c2300df 98d25f2da5abae0f
SGHMC torch.float64 b292cabe16c2e7ae 65766b9b0bd19cc4
SGHMC torch.bfloat16 027952a356a00ca1 ae807871ea00df7e b26929585c083587
SGHMC torch.float16 ea4afb66c011b1a7 acabf3f14f25f171 34d579616e60b45d
SGNHT torch.float32 cf500db733287341 d5054c7dc8e1c213
SGNHT torch.float64 a23938f6f29b7b42 8173c1dbf157b533
SGNHT torch.bfloat16 6dca1d3c0504f86d bd58bee4017ea1fd 8b25160802461559
SGNHT torch.float16 a20942803da56db4 2e146e3b3e53b9d8 417f874201c3b3f5
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
