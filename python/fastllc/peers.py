"""The best SGLD step in pure PyTorch: what the fused kernel is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fastllc.seeds import draw_key

__all__ = ["NoiseBuffer", "TorchSGLD"]


class TorchSGLD(torch.optim.Optimizer):
    r"""SGLD from in-place foreach operations and torch's own noise.

    .. math:: w \leftarrow w
              - \tfrac{\epsilon}{2}\left(n\beta\, g + \gamma (w - w_0) + \delta w\right)
              + \sqrt\epsilon\,\sigma z

    The update of :class:`fastllc.SGLD` with other random numbers. All noise of a group comes from
    one call into one buffer that is used again every step, and the anchor enters by one ``lerp``.

    Parameters
    ----------
    params : iterable
        Tensors or groups; those of a group share one dtype and device.
    lr : float, default 0.01
        Step size :math:`\epsilon`.
    noise_level : float, default 1
        :math:`\sigma`.
    weight_decay : float, default 0
        :math:`\delta`.
    localization : float, default 0
        :math:`\gamma`; :math:`w_0` are the weights at construction.
    nbeta : float, default 1
        :math:`n\beta`, factor of the gradient.
    bounding_box_size : float, optional
        Largest distance from :math:`w_0`, coordinate by coordinate.
    seed : int, optional
        In ``[0, 2**64)``. None draws one from torch's CPU generator.

    References
    ----------
    Welling & Teh 2011, "Bayesian Learning via Stochastic Gradient Langevin Dynamics", section 3;
    Lau et al. 2023, arXiv 2308.12108, section 4.

    Examples
    --------
    >>> w = torch.ones(3, requires_grad=True)
    >>> sampler = TorchSGLD([w], lr=0.1, noise_level=0.0, nbeta=10.0, seed=0)
    >>> (w**2 / 2).sum().backward()
    >>> sampler.step()
    >>> w.tolist()
    [0.5, 0.5, 0.5]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        *,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "noise_level": noise_level,
                "weight_decay": weight_decay,
                "localization": localization,
                "nbeta": nbeta,
                "bounding_box_size": bounding_box_size,
            },
        )
        device = self.param_groups[0]["params"][0].device
        self._generator = torch.Generator(device)
        self._generator.manual_seed(draw_key() if seed is None else seed)
        self._anchors = [[p.detach().clone() for p in g["params"]] for g in self.param_groups]
        self._noise = [NoiseBuffer(g["params"], self._generator) for g in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; every parameter needs a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, w0, noise in zip(self.param_groups, self._anchors, self._noise, strict=True):
            w = group["params"]
            grads = [p.grad for p in w]
            pull = group["lr"] / 2 * group["localization"]
            decay = group["lr"] / 2 * group["weight_decay"]
            if decay:
                torch._foreach_mul_(w, 1 - pull - decay)
                if pull:
                    torch._foreach_add_(w, w0, alpha=pull)
            elif pull:
                torch._foreach_lerp_(w, w0, pull)
            torch._foreach_add_(w, grads, alpha=-group["lr"] / 2 * group["nbeta"])
            scale = math.sqrt(group["lr"]) * group["noise_level"]
            if scale:
                torch._foreach_add_(w, noise.draw(), alpha=scale)
            if group["bounding_box_size"] is not None:
                for p, anchor in zip(w, w0, strict=True):
                    box = group["bounding_box_size"]
                    torch.clamp(p, anchor - box, anchor + box, out=p)
        return loss


class NoiseBuffer:
    """Standard normal numbers for a list of tensors, by one call into one flat buffer.

    Parameters
    ----------
    params : list of Tensor
        Of one dtype and device; only their shapes matter.
    generator : torch.Generator
        Where the numbers come from.

    Examples
    --------
    >>> noise = NoiseBuffer([torch.zeros(2, 3), torch.zeros(3)], torch.Generator())
    >>> [z.shape for z in noise.draw()]
    [torch.Size([2, 3]), torch.Size([3])]
    """

    def __init__(self, params: list[Tensor], generator: torch.Generator) -> None:
        self._generator = generator
        self._flat = params[0].new_empty(sum(p.numel() for p in params))
        pieces = torch.split(self._flat, [p.numel() for p in params])
        self._views = [piece.view(p.shape) for piece, p in zip(pieces, params, strict=True)]

    def draw(self) -> list[Tensor]:
        """Return views of the buffer, filled anew."""
        self._flat.normal_(generator=self._generator)
        return self._views
