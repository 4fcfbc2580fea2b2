"""Random state on loan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def seeded_rng(
    seed: int, device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Iterator[None]:
    """Seed torch's random state for a while, and put the caller's back at the end.

    Parameters
    ----------
    seed : int
        In ``[0, 2**64)``.
    device : torch.device
        Whose generator is seeded beside the CPU's (dropout on a GPU draws from it).
    generators : sequence of torch.Generator
        Further generators to seed and to put back.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with seeded_rng(1, torch.device("cpu")):
    ...     first = torch.rand(())
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    cuda = [device] if device.type == "cuda" else []
    states = [generator.get_state() for generator in generators]
    try:
        with torch.random.fork_rng(devices=cuda):
            # torch.manual_seed would also seed every other GPU, which nothing puts back.
            torch.default_generator.manual_seed(seed)
            for each in cuda:
                with torch.cuda.device(each):
                    torch.cuda.manual_seed(seed)
            for generator in generators:
                generator.manual_seed(seed)
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
