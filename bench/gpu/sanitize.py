"""Small steps of every kind, for compute-sanitizer to watch."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from fastllc import localization_penalty, standard_normal
from fastllc.samplers.momentum import BAOAB, SGHMC, SGNHT
from fastllc.samplers.preconditioned import AdamSGLD, RMSpropSGLD
from fastllc.samplers.sgld import SGLD

SHAPES = [(37, 29), (7,), (), (0,), (16384 + 5,)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SAMPLERS = [SGLD, RMSpropSGLD, AdamSGLD, SGHMC, SGNHT, BAOAB]


def main() -> None:
    """Take two steps of every sampler, precision and option."""
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda").to(dtype)

    for kind, dtype, masked in itertools.product(SAMPLERS, DTYPES, (False, True)):
        # One element off, so that nothing is aligned.
        rooms = [draw((max(1, torch.Size(s).numel()) + 1,), dtype) for s in SHAPES]
        params = [
            room[1 : 1 + torch.Size(shape).numel()].view(shape).requires_grad_()
            for room, shape in zip(rooms, SHAPES, strict=True)
        ]
        params = [p.detach().requires_grad_() for p in params]
        options: dict[str, Any] = {"rounding": "stochastic" if masked else "exact"}
        if masked:
            options["mask"] = [draw(shape, torch.float32) > 0 for shape in SHAPES]
        if not masked or kind is SGLD:
            options |= {"save_metrics": True, "sketch_dim": 33}
        sampler = kind(params, lr=1e-2, localization=1.0, bounding_box_size=0.5, seed=1, **options)
        for _ in range(2):
            for param, shape in zip(params, SHAPES, strict=True):
                param.grad = draw(shape, dtype)
            sampler.step()
        sampler.state_dict()
    for dtype in DTYPES[:2]:
        standard_normal(1001, seed=1, dtype=dtype, device="cuda")
        w = draw((501,), dtype).requires_grad_()
        torch.autograd.backward(localization_penalty([w], [draw((501,), dtype)], 1.0))
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
