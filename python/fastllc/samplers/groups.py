"""Groups of a sampler: settings, anchors, masks, and the state that resumes bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch._compile import _disable_dynamo
from torch.optim.optimizer import Optimizer, ParamsT

from fastllc import _core, kernels, memory
from fastllc.checks import check_int
from fastllc.errors import warn
from fastllc.kernels import Setting
from fastllc.samplers.readings import Readings, equal
from fastllc.samplers.settings import COMMON, Common, common_setting, needs_anchor
from fastllc.samplers.sketches import SHARED, check_sketch
from fastllc.samplers.state import check_mask_names, check_rounding, own_state, spread_masks

__all__ = ["Grouped"]


class Grouped(Optimizer):
    """A `torch.optim.Optimizer` whose groups are checked, anchored and resumed as samplers need it.

    Each group holds, beside its settings, what the noise is addressed by: ``seed``, ``step``
    (steps taken), ``first_param`` (id of its first parameter) and ``noise_format``. ``seed`` and
    ``step`` are the same in all groups. ``state[p]`` has the anchor ``w0``, kept where something
    needs it, the state of the rule with the step in which it was ``born``, and the ``residual`` of
    a low-precision weight. All of it travels in the state dict.
    """

    shared_names: ClassVar[tuple[str, ...]] = ()  # of group keys with one value for all groups

    def __init__(self, params: ParamsT, own: dict[str, Any], common: Common) -> None:
        if isinstance(params, (set, frozenset)):
            raise TypeError("params must be in an order that does not change, got a set")
        unknown = sorted(set(common) - set(COMMON))
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected argument {unknown[0]!r}")
        self._forget([*own, *COMMON])
        super().__init__(params, {**own, **COMMON, **common})
        check_mask_names(self.defaults["mask"], self.param_groups)

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        return common_setting(group)

    @classmethod
    def scales(cls, setting: Setting) -> tuple[float, float]:
        """Return what multiplies drift and standard normal in a step."""
        return 0.5 * setting.lr, setting.lr**0.5 * setting.noise_level

    @_disable_dynamo
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters are anchored where they are now.

        Raises
        ------
        TypeError, ValueError
            If a setting is out of range or a tensor cannot be sampled; no group is added then.
        """
        param_group = dict(param_group)  # what is filled in stays out of the caller's
        earlier = list(self.param_groups)
        if earlier:
            for name in ("seed", "step", *SHARED, *self.shared_names):
                value = earlier[0][name]
                given = param_group.setdefault(name, value)
                if not equal(given, value):
                    raise ValueError(
                        f"{name} must be that of the other groups, {value}, got {given}"
                    )
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            group.setdefault("step", 0)
            group["first_param"] = sum(len(g["params"]) for g in earlier)
            group["noise_format"] = _core.NOISE_FORMAT
            self._admit(group)
        except BaseException:
            self.param_groups.pop()
            raise
        self._forget(self.defaults)

    def _admit(self, group: dict[str, Any]) -> None:
        """Check a new group and anchor its parameters."""
        setting = self.setting(group)
        check_sketch(group)
        if group["seed"] is not None:
            group["seed"] = check_int("seed", group["seed"], 64)
        if not group["params"]:
            raise ValueError("params must not be empty, got a group without parameters")
        if group["first_param"] + len(group["params"]) > kernels.MAX_PARAMS:
            raise ValueError(f"params must be at most {kernels.MAX_PARAMS} tensors")
        everything = [p for g in self.param_groups for p in g["params"]]
        for i, param in enumerate(group["params"]):
            name = f"params[{group['first_param'] + i}]"
            memory.check_tensor(name, param)
            if param.device != everything[0].device:
                raise ValueError(
                    f"{name} must be on {everything[0].device} like params[0], got {param.device}"
                )
            if group["rounding"] == "stochastic":
                check_rounding(name, param, setting)
        memory.check_disjoint(dict.fromkeys(everything))
        if (masks := spread_masks(group, self.defaults["mask"])) is not None:
            group["mask"] = [mask if mask is None else mask.clone() for mask in masks]
        if not kernels.has_kernel(everything[0]):
            warn(
                f"no native kernel for {everything[0].device}: steps run the PyTorch reference, "
                "which gives the same noise but is slow"
            )
        if needs_anchor(setting) or group["save_metrics"]:
            for param in group["params"]:
                anchor = param.detach().clone(memory_format=torch.contiguous_format)
                self.state[param]["w0"] = anchor

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; the next step is the one that would have followed.

        Raises
        ------
        ValueError
            If the groups do not match, or the state was saved with another noise format.
        """
        for group in state_dict["param_groups"]:
            if group.get("noise_format") != _core.NOISE_FORMAT:
                raise ValueError(
                    f"noise_format must be {_core.NOISE_FORMAT}, that of this version, "
                    f"got {group.get('noise_format')}"
                )
        loaded: list[dict[str, Any]] = []
        # After the hooks that others have registered, which may change what is loaded.
        with self.register_load_state_dict_pre_hook(lambda _, given: loaded.append(given)):
            super().load_state_dict(state_dict)
        own_state(self.state, self.param_groups, loaded[0])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a state dict, one of an earlier version too."""
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # which torch puts there: no sampler has it
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            if isinstance(group["mask"], Mapping):
                group["mask"] = spread_masks(group, self.defaults["mask"])
        self._forget(self.defaults)

    def _forget(self, names: Iterable[str]) -> None:
        """Derive everything that is cached from the groups anew."""
        settings = [name for name in names if name not in ("mask", "seed", "thermostat")]
        self._readings = Readings(settings, self.setting, self._check_anchors)

    def _check_anchors(self, group: Mapping[str, Any], setting: Setting, saving: bool) -> None:
        if (needs_anchor(setting) or saving) and not all(
            "w0" in self.state.get(param, ()) for param in group["params"]
        ):
            raise ValueError(
                "localization, bounding_box_size and save_metrics need an anchor, which is only "
                "kept if one of them was set when the group was added"
            )
