"""Hashes of noise and steps, which are the same on every machine and device."""

SCRIPT = """
import hashlib, os, torch, fastllc

DEVICE = os.environ.get("GOLDEN_DEVICE", "cpu")
OWN = {
    "SGLD": {}, "RMSpropSGLD": {"adapt_steps": 3}, "AdamSGLD": {"adapt_steps": 3},
    "SGHMC": {"friction": 0.3}, "SGNHT": {"diffusion_factor": 0.1},
    "BAOAB": {"friction": 0.3},
}
SHAPES = [(120, 301), (7,), (), (0,), (65,)]

def digest(*tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]

def numbers(shape, dtype, scale):
    return torch.randint(-999, 999, shape).to(torch.float64).div(scale).to(dtype).to(DEVICE)

def metrics_of(sampler):
    # Sums of the device's own, put together here: the order is then the CPU's.
    last = sampler._last
    if DEVICE != "cpu":
        sums = {name: getattr(last.outcome, name).cpu() for name in ("moments", "nonfinite")}
        sampler._last = last._replace(outcome=last.outcome._replace(**sums))
    return sampler.get_metrics()

def walk(name, dtype, masked=False, rounding="exact"):
    torch.manual_seed(0)
    w = [numbers(s, dtype, 512).requires_grad_() for s in SHAPES]
    on = [torch.rand(s) < 0.5 for s in SHAPES]
    on[0][:40] &= torch.rand(40, 301) < 0.03  # sparse, then half, then whole rows
    on[0][80:] = torch.arange(40)[:, None] % 3 > 0
    on = [mask.to(DEVICE) for mask in on]
    sampler = getattr(fastllc, name)(
        w, lr=1e-2, nbeta=3.0, localization=0.5, weight_decay=0.1, bounding_box_size=0.5,
        mask=on if masked else None, rounding=rounding, save_metrics=True, seed=11, **OWN[name],
    )
    kept, metrics = [], []
    for _ in range(5):
        for p in w:
            p.grad = numbers(p.shape, dtype, 256)
        sampler.step()
        metrics.append(torch.stack(list(metrics_of(sampler))))
    for p, mask in zip(w, on):
        state = [sampler.state[p].get(name) for name in ("momentum", "square_avg", "residual")]
        kept += [x[mask] if masked else x for x in state if x is not None]
    thermostat = torch.tensor([getattr(sampler, "thermostat", 0.0)], dtype=torch.float64)
    return digest(*w, *kept, *metrics, thermostat)

def report():
    for dtype in (torch.float32, torch.float64):
        noise = fastllc.standard_normal(
            2**20, seed=2026, step=5, param=9, dtype=dtype, device=DEVICE
        )
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
SGLD torch.float32 1bf82c2a5eac4309 726478073e82fadf
SGLD torch.float64 0cd91a9721c5dee9 9acc8726edc7e151
SGLD torch.bfloat16 2fd7da2f5958cbca 8ac684b222a036b3 004b34636a77cddb
SGLD torch.float16 fbb02d663add5396 73d107fb83f1d65c be4ebb303d6f678f
RMSpropSGLD torch.float32 a191e81a3d842468 845b7553a95b4097
RMSpropSGLD torch.float64 56fc98eab1300a38 5fc42627383c6a7f
RMSpropSGLD torch.bfloat16 cbe166df63f1a8d6 afd3e2c073743acb 0b33bc011374581d
RMSpropSGLD torch.float16 f09885204568135b a2b517fa6d380f70 178ea886a3025339
AdamSGLD torch.float32 01b2b3b6e3083df1 2ec5f9fcccc717a8
AdamSGLD torch.float64 4d264cb999ba3328 56f09fe68512057b
AdamSGLD torch.bfloat16 866d6f075bd2ed29 15329f218f5825a1 54c58f5c3605cf67
AdamSGLD torch.float16 0d9019bdcb1bc9c0 6c874bbf4427ad65 37ff271361d2a6d5
SGHMC torch.float32 6f94d0bb4ac8b64c 7bf7444af992d986
SGHMC torch.float64 b292cabe16c2e7ae 350be3572574e183
SGHMC torch.bfloat16 45af393293ad315b cd61aa8ff560a065 2ba8f6cd319a67d5
SGHMC torch.float16 0573c5fddeac2d2c 8af7ba8d16e170e9 4f017b4a8b9be8d2
SGNHT torch.float32 327b0252bc4f47c9 83542803ba70cfca
SGNHT torch.float64 a23938f6f29b7b42 c2437b3c2d4350da
SGNHT torch.bfloat16 361423828387194d 7a98356e5743b62a fb70e9c664644fb1
SGNHT torch.float16 9cd849aa28452a16 e7c94d418ede4545 8e7519ec6396cd6f
BAOAB torch.float32 f56bbd1381821053 525bf5c3971b4a66
BAOAB torch.float64 7853838720805ca5 17e3464ee4d83830
BAOAB torch.bfloat16 572f75b9089113ab d32c180932211331 9c54414cad028ff9
BAOAB torch.float16 284c9d4a2249dff8 0fbdc7e7663a9ca7 99059879d58947a8
"""
