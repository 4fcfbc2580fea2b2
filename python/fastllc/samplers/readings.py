"""What a step reads from the parameter groups, remembered from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_, itemgetter
from typing import Any

from fastllc.checks import check_int
from fastllc.kernels import MAX_STEP, Setting, Sketch
from fastllc.samplers.sketches import SHARED, check_sketch

__all__ = ["Readings", "check_same", "equal"]

# Numbers and words, which have the same value as long as they are the same object; a tensor may
# change in place, or equal a float that it does not round to.
_CONSTANT = frozenset({float, int, bool, str, type(None)})

Group = Mapping[str, Any]


class Readings:
    """Counters and settings of the groups, read again only where something may have changed.

    Parameters
    ----------
    names : sequence of str
        The group keys from which `setting` makes its result.
    setting : callable
        Makes the checked `Setting` of a group.
    check : callable
        Raises if a group cannot be stepped with (setting, save_metrics).

    Attributes
    ----------
    settings, saving : list of Setting, list of bool
        Of each group, as `read` found them.
    sketch : Sketch or None
        Of all groups.
    """

    def __init__(
        self,
        names: Sequence[str],
        setting: Callable[[Group], Setting],
        check: Callable[[Group, Setting, bool], None],
    ) -> None:
        self._values = itemgetter(*names)
        self._setting, self._check = setting, check
        self._constants: list[tuple[Any, ...]] = []
        self._counted: tuple[int, int | None] = -1, None  # no group's
        self.settings: list[Setting] = []
        self.saving: list[bool] = []
        self.sketch: Sketch | None = None

    def read(self, groups: Sequence[Group]) -> None:
        """Read the settings; those that have changed since the last step are checked."""
        if self._same(groups):
            return
        settings = [self._setting(group) for group in groups]
        saving = [bool(group["save_metrics"]) for group in groups]
        for name in SHARED:
            check_same(name, groups)
        sketch = check_sketch(groups[0])
        if settings != self.settings or saving != self.saving:
            for group, setting, save_metrics in zip(groups, settings, saving, strict=True):
                self._check(group, setting, save_metrics)
            self.settings, self.saving = settings, saving
        self.sketch = sketch
        values = [self._values(group) for group in groups]
        constant = all(_is_constant(value) for row in values for value in row)
        self._constants = values if constant else []

    def check(self, groups: Sequence[Group]) -> None:
        """Raise if the groups cannot be stepped with what was read."""
        for group, setting, saving in zip(groups, self.settings, self.saving, strict=True):
            self._check(group, setting, saving)

    def _same(self, groups: Sequence[Group]) -> bool:
        """Whether the groups hold the very objects that were read last."""
        if len(groups) != len(self._constants):
            return False
        for row, group in zip(self._constants, groups, strict=True):
            if not all(map(is_, self._values(group), row)):
                return False
        return True

    def counters(self, groups: Sequence[Group]) -> tuple[int, int | None]:
        """Return step and seed, which must be those of every group."""
        step, seed = self._counted
        for group in groups:
            if group["step"] is not step or group["seed"] is not seed:
                step, seed = _check_counters(groups)
                break
        if step > MAX_STEP:
            raise OverflowError(f"step must be below 2**32, got {step}")
        return step, seed

    def write(self, groups: Sequence[dict[str, Any]], step: int, seed: int | None) -> None:
        """Leave the counters of the next step in all groups."""
        for group in groups:
            group["seed"], group["step"] = seed, step
        self._counted = step, seed


def _is_constant(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return type(value) in _CONSTANT


def equal(a: Any, b: Any) -> bool:
    """Whether two values are the same, NaN included; tensors of several elements are not.

    Examples
    --------
    >>> import torch
    >>> equal(0.5, torch.tensor(0.5)), equal(0.5, torch.tensor([0.5, 0.5]))
    (True, False)
    """
    try:
        return a is b or bool(a == b)
    except (RuntimeError, ValueError):
        return False


def check_same(name: str, groups: Sequence[Group]) -> None:
    """Raise unless all groups have the same value.

    Examples
    --------
    >>> check_same("seed", [{"seed": 1}, {"seed": 2}])
    Traceback (most recent call last):
    ValueError: seed must be the same in all groups, got 1 and 2
    """
    value = groups[0][name]
    for group in groups[1:]:
        if not equal(group[name], value):
            raise ValueError(
                f"{name} must be the same in all groups, got {value} and {group[name]}"
            )


def _check_counters(groups: Sequence[Group]) -> tuple[int, int | None]:
    first = groups[0]
    for name, bits in (("step", 33), ("seed", 64)):
        if first[name] is not None or name == "step":
            check_int(name, first[name], bits)
        check_same(name, groups)
    return first["step"], first["seed"]
