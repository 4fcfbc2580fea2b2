"""What segments take and refuse."""

import pytest
import torch

from chains import K, draw_members, setting
from fastllc._core import Rule
from fastllc.kernels import Member, Segments

F64 = {"dtype": torch.float64}
MISFITS = {
    "chains": ({"w": torch.zeros(2, 3)}, ValueError,
               r"params\[1\] must have shape \[4, ...\], got \(2, 3\)"),
    "anchor's shape": ({"w0": torch.zeros(2)}, ValueError,
                       r"w0\[1\] must have shape \(3,\), got \(2,\)"),
    "an anchor for each chain": ({"w0": torch.zeros(K, 3)}, ValueError,
                                 r"w0\[1\] must have shape \(3,\), got \(4, 3\)"),
    "anchor's strides": ({"w0": torch.zeros(6)[::2]}, ValueError, r"w0\[1\] must be contiguous"),
    "mask's dtype": ({"mask": torch.zeros(3)}, TypeError, r"mask\[1\] must be bool, got float32"),
    "mask's shape": ({"mask": torch.ones(4).bool()}, ValueError,
                     r"mask\[1\] must have shape \(3,\), got \(4,\)"),
    "momentum's shape": ({"momentum": torch.zeros(3)}, ValueError,
                         r"momentum\[1\] must have shape \(4, 3\), got \(3,\)"),
    "momentum's dtype": ({"momentum": torch.zeros(K, 3, **F64)}, TypeError,
                         r"momentum\[1\] must be float32, got float64"),
    "sparse momentum": ({"momentum": torch.zeros(K, 3).to_sparse()}, RuntimeError,
                        r"momentum\[1\] must be dense \(torch.strided\), got torch.sparse_coo"),
    "no tensor": ({"momentum": 0.0}, TypeError, r"momentum\[1\] must be a tensor, got float"),
    "expanded state": ({"square_avg": torch.zeros(3).expand(K, 3)}, ValueError,
                       r"square_avg\[1\] must be contiguous"),
    "residual's dtype": ({"w": torch.zeros(K, 3).bfloat16(), "residual": torch.zeros(K, 3)},
                         TypeError, r"residual\[1\] must be int16, got float32"),
    "id": ({"id": 2**24}, ValueError, r"id must be in \[0, 2\*\*24\), got 16777216"),
    "the same id": ({"id": 0}, ValueError, "ids must differ"),
    "group": ({"group": -1}, ValueError, "group must be >= 0, got -1"),
    "first": ({"first": -1}, ValueError, "first must be >= 0, got -1"),
    "born": ({"born": -1}, ValueError, "born must be >= 0, got -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused(case):
    change, error, message = MISFITS[case]
    member = Member(torch.zeros(K, 3), id=1)
    Segments([Member(torch.zeros(K, 3), id=0), member], chains=K)
    with pytest.raises(error, match=message):
        Segments([Member(torch.zeros(K, 3), id=0), member._replace(**change)], chains=K)


@pytest.mark.parametrize("kind", ["momentum", "w0", "mask"])
def test_state_that_shares_memory_with_a_weight_is_refused(kind):
    w = torch.zeros(12)
    tensor = w[3:9].view(torch.bool)[:12] if kind == "mask" else w
    with pytest.raises(ValueError, match="share memory"):
        Segments([Member(w, id=0, **{kind: tensor})], Rule.sghmc)


def test_gradients_are_kept_until_they_have_been_read():
    w = torch.zeros(100_000)
    segments = Segments([Member(w, id=0)])
    segments.bind([torch.ones(100_000)])
    noise = [torch.full((100_000,), 7.0) for _ in range(3)]  # where freed memory would be reused
    segments.step([[setting(noise_level=0.0, weight_decay=0.0)]], [0], [0])
    assert (w == w[0]).all()
    assert w[0] == pytest.approx(-0.5 * 1e-2 * 3.0)
    assert len(noise) == 3
    with pytest.raises(RuntimeError, match="call bind before each step"):
        segments.step([[setting()]], [0], [1])


@pytest.mark.parametrize("anchors", [[0, 0, 1], [0, 0, 0, -1], [0, 0, 0, 1]])
def test_anchors_must_fit_chains_and_their_rows(anchors):
    members, _ = draw_members(Rule.sgld, torch.float32)
    members = [m._replace(w0=torch.zeros(3, *m.w.shape[1:])) for m in members]
    with pytest.raises(ValueError, match=r"anchors must be 4 rows|w0\[0\] must have shape \(2,"):
        Segments(members, Rule.sgld, chains=K, anchors=anchors)
