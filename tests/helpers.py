"""What several test files build their samplers with, and the steps they expect of them."""

import torch

from fastllc import BAOAB, SGHMC, SGLD, SGNHT, AdamSGLD, RMSpropSGLD, reference
from fastllc._core import Rule
from fastllc.kernels import Member, real_dtype

DTYPES = [torch.float32, torch.float64]
LOW = [torch.bfloat16, torch.float16]
SENTINEL = 7.25
STATE = ("momentum", "square_avg", "residual")
SAMPLERS = [SGLD, RMSpropSGLD, AdamSGLD, SGHMC, SGNHT, BAOAB]
# Settings of their own, away from the defaults; averages freeze within a few steps.
OWN = {
    SGLD: {},
    RMSpropSGLD: {"alpha": 0.8, "eps": 0.05, "adapt_steps": 2},
    AdamSGLD: {"betas": (0.7, 0.85), "eps": 0.2, "adapt_steps": 3},
    SGHMC: {"friction": 0.3},
    SGNHT: {"diffusion_factor": 0.2},
    BAOAB: {"friction": 0.25},
}
# Others again, for changes between steps.
CHANGED = {
    SGLD: {},
    RMSpropSGLD: {"alpha": 0.5, "eps": 0.3, "convention": "devinterp", "adapt_steps": 4},
    AdamSGLD: {"betas": (0.2, 0.5), "eps": 0.3, "adapt_steps": None},
    SGHMC: {"friction": 0.9},
    SGNHT: {"diffusion_factor": 0.6},
    BAOAB: {"friction": 1.0},
}


def leaf(values):
    return values.detach().clone().requires_grad_()


def draw(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def make(*shapes, dtype=torch.float32):
    """Parameters with gradients."""
    params = [leaf(draw(shape, dtype, seed=i)) for i, shape in enumerate(shapes)]
    for i, param in enumerate(params):
        param.grad = draw(param.shape, dtype, seed=100 + i)
    return params


def raw(tensor):
    """The bytes of the elements in row-major order."""
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    return copy.flatten().view(torch.uint8).numpy().tobytes()


def same_bits(a, b):
    return (a.dtype, a.shape) == (b.dtype, b.shape) and raw(a) == raw(b)


def lay_out(values, layout):
    """Return (a view with these values in another layout, the memory around it)."""
    shape, dtype = values.shape, values.dtype
    if layout == "transposed":
        base = torch.full(tuple(reversed(shape)), SENTINEL, dtype=dtype)
        view = base.permute(tuple(reversed(range(len(shape)))))
    elif layout == "sliced":
        base = torch.full([2 * n + 1 for n in shape], SENTINEL, dtype=dtype)
        view = base[tuple(slice(1, 2 * n + 1, 2) for n in shape)]
    elif layout == "offset":  # one element off: no vector is aligned
        base = torch.full((values.numel() + 5,), SENTINEL, dtype=dtype)
        view = base[1 : 1 + values.numel()].view(shape)
    elif layout == "channels_last" and values.ndim == 4:
        base = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
        view = base
    else:
        base = torch.empty(shape, dtype=dtype)
        view = base
    view.copy_(values)
    return view.detach(), base


def member_of(sampler, group, i):
    """The i-th parameter of a group as the next step finds it, apart from the sampler's code."""
    param = group["params"][i]
    state = sampler.state.get(param, {})
    zeros = torch.zeros(param.shape, dtype=real_dtype(param.dtype))
    tensors = {name: state.get(name, zeros) for name in sampler.state_names}
    if param.dtype in LOW and group["rounding"] == "exact":
        integers = param.dtype == torch.bfloat16
        tensors["residual"] = state.get("residual", zeros.short() if integers else zeros)
    return Member(
        param.detach(),
        id=group["first_param"] + i,
        w0=state.get("w0"),
        mask=group["mask"][i] if group["mask"] else None,
        born=state.get("born", group["step"]),
        **tensors,
    )


def expected(sampler, key=None):
    """What the next step makes of the parameters with gradients, and of the thermostat."""
    after, parts = {}, []
    thermostat = getattr(sampler, "thermostat", 0.0)
    for group in sampler.param_groups:
        setting = sampler.setting(group)
        for i, param in enumerate(group["params"]):
            if param.grad is None:
                continue
            after[param] = reference.advance(
                sampler.rule,
                member_of(sampler, group, i),
                param.grad.detach(),
                setting,
                group["seed"] if key is None else key,
                group["step"],
                thermostat,
            )
            parts.append((setting.lr, after[param].kinetic, after[param].updated))
    if sampler.rule == Rule.sgnht:
        thermostat += reference.thermostat_change(parts)
    return after, thermostat


def masks_of(sampler):
    masked = [group for group in sampler.param_groups if group["mask"]]
    return {
        param: mask
        for group in masked
        for param, mask in zip(group["params"], group["mask"], strict=True)
        if mask is not None
    }


def check_step(sampler, key=None, **step):
    """Take a step, which must be the reference's in every bit of weights and state."""
    wanted, thermostat = expected(sampler, key)
    still = [p for g in sampler.param_groups for p in g["params"] if p.grad is None]
    before = [p.detach().clone() for p in still]
    sampler.step(**step)
    for param, after in wanted.items():
        assert same_bits(param, after.w)
        on = masks_of(sampler).get(param, ...)  # elsewhere state is nobody's
        for name in STATE:
            if name in sampler.state.get(param, ()):
                found, should = sampler.state[param][name], getattr(after, name)
                assert same_bits(found[on], should[on]), name
    for param, w in zip(still, before, strict=True):
        assert same_bits(param, w)
    if sampler.rule == Rule.sgnht:
        assert abs(sampler.thermostat - thermostat) <= 1e-6 * max(1.0, abs(thermostat))
