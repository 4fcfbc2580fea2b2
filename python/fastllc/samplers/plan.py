"""What a step moves: the parameters that have gradients, with the state that they need."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from operator import is_
from typing import Any

from torch import Tensor

from fastllc import _core, kernels, memory
from fastllc.checks import check_int
from fastllc.kernels import Chains, DeviceSegments, Member, Segments, Setting
from fastllc.samplers.state import LOW, missing_state, spread_masks

__all__ = ["Plan"]

State = MutableMapping[Tensor, dict[str, Any]]


class Plan:
    """Members and native tables of a sampler's steps, made anew when what they are made of changes.

    Parameters
    ----------
    rule : _core.Rule
        How the members move.
    names : tuple of str
        Of the state that the rule keeps.

    Attributes
    ----------
    members : list of Member
        The parameters that have a gradient, in order.
    segments : Segments, DeviceSegments or None
        Their native tables; None without members and where there is no kernel.
    chain : Chains or None
        The row of the chain on its device, which outlives the tables.
    """

    def __init__(self, rule: _core.Rule, names: tuple[str, ...]) -> None:
        self._rule, self._names = rule, names
        self.chain: Chains | None = None
        self._clear()

    def _clear(self) -> None:
        self.members: list[Member] = []
        self.segments: Segments | DeviceSegments | None = None
        self._involved: list[Any] = []
        self._born = 0
        self._fresh: list[dict[str, Any]] | None = None

    def bind(
        self,
        groups: Sequence[Mapping[str, Any]],
        state: State,
        step: int,
        settings: Sequence[Setting],
    ) -> list[Tensor]:
        """Collect the gradients and check all tensors; return the gradients.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If a tensor is unfit or a state is younger than the step. Nothing has changed then.
        """
        involved, grads = _look(groups, state)
        known = self._involved
        if len(involved) != len(known) or not all(map(is_, involved, known)):
            self._clear()
            self._make(groups, state, step, settings)
            if self.members and kernels.has_kernel(self.members[0].w):
                self.segments = self._open()
        if step < self._born:
            raise ValueError(
                f"step must be at least {self._born}, in which state of a parameter was born, "
                f"got {step}"
            )
        if self.segments is not None:
            self.segments.bind(grads)
        else:
            for member, grad in zip(self.members, grads, strict=True):
                memory.check_like(f"params[{member.id}].grad", grad, member.w)
        return grads

    @property
    def renewed(self) -> bool:
        """Whether the last `bind` has made the plan anew, and `keep` has not taken it up yet."""
        return self._fresh is not None

    def changed(self, groups: Sequence[Mapping[str, Any]], state: State) -> bool:
        """Whether the next `bind` will find other tensors to move than the last."""
        involved, _ = _look(groups, state)
        known = self._involved
        return len(involved) != len(known) or not all(map(is_, involved, known))

    def _open(self) -> Segments | DeviceSegments:
        first = self.members[0].w
        if not kernels.on_device(first):
            return Segments(self.members, self._rule)
        if self.chain is None:
            self.chain = Chains(1, first.device)
        return DeviceSegments(self.members, self._rule, self.chain)

    def keep(self, groups: Sequence[Mapping[str, Any]], state: State) -> None:
        """Take up what `bind` had to make, into the sampler's state, once nothing can be refused.

        What the plan was made of is remembered then.
        """
        if self._fresh is None:
            return
        for member, new in zip(self.members, self._fresh, strict=True):
            if new:
                state[member.w].update(new)
            if member.residual is None:  # of an earlier rounding
                state.get(member.w, {}).pop("residual", None)
        self._fresh = None
        self._involved, _ = _look(groups, state)

    def _make(
        self,
        groups: Sequence[Mapping[str, Any]],
        states: State,
        step: int,
        settings: Sequence[Setting],
    ) -> None:
        self._fresh = []
        for index, group in enumerate(groups):
            masks = spread_masks(group) or [None] * len(group["params"])
            exact = group["rounding"] == "exact"
            for i, (param, mask) in enumerate(zip(group["params"], masks, strict=True)):
                if param.grad is None:
                    continue
                number = group["first_param"] + i
                state = states.get(param, {})
                new: dict[str, Any] = missing_state(state, param, self._names, exact=exact)
                # A step need not write what a mask holds still, and masks may change.
                if mask is not None and "square_avg" in new:
                    new["square_avg"].fill_(settings[index].start)
                if self._names and ("born" not in state or new.keys() & self._names):
                    new["born"] = step
                self._fresh.append(new)
                state = {**state, **new}
                self.members.append(
                    Member(
                        param,
                        id=number,
                        group=index,
                        w0=state.get("w0"),
                        mask=mask,
                        residual=state.get("residual") if exact and param.dtype in LOW else None,
                        born=check_int(f"born[{number}]", state.get("born", 0), 32),
                        **{name: state[name] for name in self._names},
                    )
                )
        self._born = max((m.born for m in self.members), default=0) if self._names else 0


def _look(groups: Sequence[Mapping[str, Any]], states: State) -> tuple[list[Any], list[Tensor]]:
    """Return all objects that a plan is made of, and the gradients."""
    involved: list[Any] = []
    grads: list[Tensor] = []
    for group in groups:
        mask = group["mask"]
        involved += mask, group["rounding"]
        if type(mask) is list:
            involved += mask
        for param in group["params"]:
            if (grad := param.grad) is not None:
                involved.append(param)
                grads.append(grad)
    involved += states
    for state in states.values():
        if isinstance(state, dict):
            involved += state.values()
    return involved, grads
