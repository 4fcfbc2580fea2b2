"""What a step was made of, in few numbers: count sketches of its components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.checks import check_int
from fastllc.kernels import MAX_SKETCH, Sketch

__all__ = ["SHARED", "Sketches", "check_sketch", "sketches_of"]

SHARED = ("sketch_dim", "sketch_seed")  # have one value for all groups


class Sketches(NamedTuple):
    """Count sketches of the components of the last step; each float32, of shape [sketch_dim].

    Those of parameters on a CUDA device are there too: nothing has waited for it.

    The components are those of `Metrics`, over all elements that are updated, as one vector each.
    With a sign s(i) = -1 or 1 and a bucket h(i) of every element i, both random and fixed by
    ``sketch_seed``, the sketch of a vector v is

        S(v)[j] = sum of s(i) v[i] over the i with h(i) = j

    so that S(a v + b w) = a S(v) + b S(w), and over seeds <S(v), S(w)> has mean <v, w> and a
    variance of at most (||v||^2 ||w||^2 + <v, w>^2) / sketch_dim. Sketches of one seed may be
    compared and added up over steps, chains, samplers and threads: an element's sign and bucket
    follow from the seed, the place of its parameter in the sampler and its own place in that.

    Attributes
    ----------
    scaled_grad, unscaled_grad, localization, weight_decay, noise : see `Metrics`

    References
    ----------
    Charikar, Chen & Farach-Colton (2002), Finding frequent items in data streams, ICALP.
    Weinberger et al. (2009), Feature hashing for large scale multitask learning, ICML.

    Examples
    --------
    >>> Sketches._fields
    ('scaled_grad', 'unscaled_grad', 'localization', 'weight_decay', 'noise')
    """

    scaled_grad: Tensor
    unscaled_grad: Tensor
    localization: Tensor
    weight_decay: Tensor
    noise: Tensor


def check_sketch(group: Mapping[str, Any]) -> Sketch | None:
    """Return how a group is sketched; None if it is not.

    Raises
    ------
    TypeError, ValueError
        If ``sketch_dim`` or ``sketch_seed`` is unfit.

    Examples
    --------
    >>> check_sketch({"sketch_dim": 64, "sketch_seed": 1})
    Sketch(dim=64, seed=1)
    """
    dim, seed = group["sketch_dim"], check_int("sketch_seed", group["sketch_seed"], 64)
    if dim is None:
        return None
    if check_int("sketch_dim", dim, 64) not in range(1, MAX_SKETCH + 1):
        raise ValueError(f"sketch_dim must be None or in [1, {MAX_SKETCH}], got {dim}")
    return Sketch(int(dim), seed)


def sketches_of(tables: NDArray[np.float64] | Tensor) -> Sketches:
    """Return the tables of one chain, shape [5, dim], by name.

    Examples
    --------
    >>> sketches_of(np.ones((5, 2))).noise
    tensor([1., 1.])
    """
    found = tables if isinstance(tables, Tensor) else torch.from_numpy(tables)
    return Sketches._make(found.to(torch.float32))
