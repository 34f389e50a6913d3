"""A chip's memory tiers: what is placed where, and refusal of what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from attrs import define, field

from configs.errors import CapacityError, ConfigError
from configs.spec.chip import ChipSpec
from configs.units import format_size


class Placed(NamedTuple):
    """A tensor in memory; `role` (weights, kv) says what it is for."""

    name: str
    tier: int
    size_bytes: int
    role: str


@define
class Memory:
    """The tensors placed on one chip."""

    chip: ChipSpec
    owner: str
    placed: list[Placed] = field(factory=list)
    _used: dict[int, int] = field(factory=dict, init=False)

    def place(self, name: str, size_bytes: int, tier: str | None, role: str) -> int:
        """Place a tensor and return its tier; the farthest by default. Raises CapacityError if the tier is full."""
        index = self.reserve(name, size_bytes, tier, role)
        if self.used_bytes(index) > tier_capacity_bytes(self.chip, index):
            raise CapacityError((self.explain(index),))
        return index

    def reserve(self, name: str, size_bytes: int, tier: str | None, role: str) -> int:
        """Note a tensor, whether it fits or not, and return its tier."""
        index = len(self.chip.memory) - 1 if tier is None else self._index(tier)
        self.placed.append(Placed(name, index, size_bytes, role))
        self._used[index] = self.used_bytes(index) + size_bytes
        return index

    def used_bytes(self, tier: int) -> int:
        """Return the bytes in use in a tier."""
        return self._used.get(tier, 0)

    def by_role(self) -> Mapping[str, int]:
        """Return the bytes in use by role, over all tiers."""
        sizes: dict[str, int] = {}
        for p in self.placed:
            sizes[p.role] = sizes.get(p.role, 0) + p.size_bytes
        return sizes

    def explain(self, tier: int) -> str:
        """Say what takes the room in a tier, the largest tensors first."""
        capacity = format_size(tier_capacity_bytes(self.chip, tier))
        tensors = sorted((p for p in self.placed if p.tier == tier), key=lambda p: -p.size_bytes)
        most = ", ".join(f"{p.name} {format_size(p.size_bytes)}" for p in tensors[:5])
        return (
            f"{self.owner} ({self.chip.name}): {len(tensors)} tensors need {format_size(self.used_bytes(tier))}, "
            f"{self.chip.memory[tier].name} holds {capacity}; the largest: {most}; use more chips (tp, pp), "
            "a narrower dtype, a smaller batch or a shorter sequence"
        )

    def _index(self, tier: str) -> int:
        names = [m.name for m in self.chip.memory]
        if tier not in names:
            raise ConfigError((f"chip {self.chip.name}: no memory tier {tier!r}; accepted: {', '.join(names)}",))
        return names.index(tier)


def tier_capacity_bytes(chip: ChipSpec, tier: int) -> int:
    """Return what a memory tier holds; raise ConfigError if that is unknown."""
    memory = chip.memory[tier]
    if memory.capacity_bytes is None:
        what = f"the capacity of {memory.name} is unknown and this run places tensors there"
        key = f"--set system.chip.memory[{tier}].capacity=…GiB"
        raise ConfigError((f"chip {chip.name}: {what}; give it with {key}",))
    return memory.capacity_bytes
