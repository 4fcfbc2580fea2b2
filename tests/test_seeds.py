"""Seeds, steps and generators of noise."""

import numpy as np
import pytest
import torch

from helpers import DTYPES, check_step, leaf, make, same_bits


def test_the_default_seed_comes_from_torchs_generator_at_the_first_step(kind):
    def run(seed):
        torch.manual_seed(seed)
        (param,) = make(50)
        sampler = kind([param])
        assert sampler.param_groups[0]["seed"] is None
        sampler.step()
        key = sampler.param_groups[0]["seed"]
        drawn = torch.get_rng_state()
        sampler.step()
        assert sampler.param_groups[0]["seed"] == key
        assert torch.equal(torch.get_rng_state(), drawn), "only the first step draws"
        return param, key

    with torch.random.fork_rng():
        a, key_a = run(1)
        b, key_b = run(1)
        c, key_c = run(2)
    assert key_a == key_b != key_c
    assert 0 <= key_a < 2**64
    assert same_bits(a, b)
    assert not torch.equal(a, c)


def test_drawn_keys_fill_64_bits(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        keys = []
        for _ in range(64):
            sampler = kind(make(1))
            sampler.step()
            keys.append(sampler.param_groups[0]["seed"])
    ones = np.array([[k >> b & 1 for b in range(64)] for k in keys]).sum(axis=0)
    # binomial(64, 1/2): 32 +- 4; over 64 bits beyond 5 sigma with probability 4e-5
    assert (np.abs(ones - 32) <= 20).all()
    assert len(set(keys)) == 64


def test_the_drawn_seed_is_kept_in_the_state(kind):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        (a,) = make(50)
        first = kind([a])
        first.step()
    b = leaf(a)
    b.grad = a.grad
    second = kind([b])
    second.load_state_dict(first.state_dict())
    first.step()
    second.step()
    assert same_bits(a, b)


def test_a_noise_generator_gives_a_key_for_that_step_alone(kind):
    (b,) = make(60)
    other = kind([b], seed=1)
    other.step()
    generator = torch.Generator().manual_seed(99)
    high, low = torch.randint(
        0, 2**32, (2,), generator=torch.Generator().manual_seed(99)
    ).tolist()  # fmt: skip
    torch_state = torch.get_rng_state()
    check_step(other, key=high << 32 | low, noise_generator=generator)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert other.param_groups[0]["seed"] == 1
    assert other.param_groups[0]["step"] == 2
    # the next step is the sampler's own again
    check_step(other, key=1)


def test_a_noise_generator_draws_no_seed(kind):
    sampler = kind(make(3))
    sampler.step(noise_generator=torch.Generator().manual_seed(0))
    assert sampler.param_groups[0]["seed"] is None


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1, np.uint64(2**64 - 1), np.int32(5)])
def test_seeds_of_64_bits(kind, seed):
    (param,) = make(40)
    sampler = kind([param], nbeta=0.0, seed=seed)
    assert type(sampler.param_groups[0]["seed"]) is int
    check_step(sampler, key=int(seed))


def test_the_last_step_and_the_one_beyond(kind):
    (param,) = make(40)
    sampler = kind([param], seed=1)
    sampler.param_groups[0]["step"] = 2**32 - 1
    check_step(sampler)
    after = param.detach().clone()
    with pytest.raises(OverflowError, match=r"step must be below 2\*\*32, got 4294967296"):
        sampler.step()
    assert torch.equal(param, after)


def test_no_two_elements_parameters_steps_or_seeds_share_noise(kind):
    """Over 8 * 3 * 4 * 2 numbers of each dtype, all 32-bit values differ (bar the birthday)."""
    for dtype in DTYPES:
        seen = []
        for seed in range(3):
            params = [torch.zeros(32, dtype=dtype) for _ in range(4)]
            for p in params:
                p.grad = torch.zeros_like(p)
            sampler = kind(params, lr=1.0, seed=seed)
            for _ in range(2):
                before = [p.clone() for p in params]
                for p in params:
                    p.zero_()
                sampler.step()
                seen += [p.clone() for p in params]
                del before
        values = torch.cat(seen)
        # 768 floats: expected number of equal pairs 768^2/2 / 2^24 = 0.02
        assert values.unique().numel() >= values.numel() - 2
