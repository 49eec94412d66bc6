"""The plan as records: layer groups, rates, caches and expected cost of each phase."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zoo.base.text import aligned
from zoo.recipes import plan_table

Train = Literal["all", "none", "adapter"]  # of a layer group: everything, nothing, only added parameters


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One layer group in one phase."""

    name: str
    params: int  # elements
    undecayed: int  # elements without weight decay
    lr: float  # peak rate; 0 if frozen
    weight_decay: float
    train: Train
    norm: str  # "live" | "fixed" | "frozen" | "none" (keeps no running statistics)

    @property
    def frozen(self) -> bool:
        """Whether nothing in it trains."""
        return self.train == "none"

    def record(self) -> dict[str, Any]:
        """The group as plain values: `frozen` says what trains, with `train` only for adapters."""
        names = ["frozen" if name == "train" else name for name in self.__slots__]
        if self.train == "adapter":
            names.append("train")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> GroupPlan:
        """Rebuild a group from its plain values."""
        train: Train = "none" if record["frozen"] else "all"
        return cls(**{"train": train, **{name: value for name, value in record.items() if name != "frozen"}})


@dataclass(frozen=True, slots=True)
class CachePlan:
    """How a phase trains from cached features of its frozen part."""

    group: str  # first layer group that still computes
    entry: str  # module whose input is cached
    views: int  # augmented views of each training image, which epochs take in turn
    bytes: int  # of all features, validation images included

    def record(self) -> dict[str, Any]:
        """The cache as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Pace:
    """Estimated seconds of a phase."""

    epoch: float  # of each epoch
    once: float = 0.0  # before the first one
    view: float = 0.0  # of caching the features of a view of the training images
    views: int = 0  # at most, one for each epoch

    def seconds(self, epochs: int) -> float:
        """The total for a number of epochs."""
        return self.once + self.view * min(self.views, epochs) + self.epoch * epochs

    def times(self, factor: float) -> Pace:
        """The pace of a job that takes `factor` times as long."""
        return replace(self, epoch=factor * self.epoch, once=factor * self.once, view=factor * self.view)


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One settled phase, with its own optimizer and schedule."""

    name: str
    epochs: int
    steps_per_epoch: int  # optimizer steps
    schedule: str  # "one-cycle" | "cosine" | "constant"
    warmup: float  # share of the phase's steps
    groups: tuple[GroupPlan, ...]  # ordered, input to head
    cache: CachePlan | None = None  # None: every step computes the whole network
    cache_reason: str = field(default="", compare=False)  # why; may mention measured seconds
    compiled: bool = False  # whether torch.compile makes the training step
    extra: GroupPlan | None = None  # the objective's own parameters, which are not published
    unlabelled: int = 0  # unlabelled images alongside each batch, all views counted
    views: int = 1  # of each unlabelled image
    eligible: bool = True  # whether the best epoch may be one of its epochs
    paces: tuple[Pace, ...] = field(default=(), compare=False)  # of each possible way to train it; none: unknown

    @property
    def steps(self) -> int:
        """Optimizer steps in the phase."""
        return self.epochs * self.steps_per_epoch

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the groups that do not train."""
        return frozenset(group.name for group in self.groups if group.frozen)

    @property
    def adapted(self) -> frozenset[str]:
        """Names of the groups with only adapters training."""
        return frozenset(group.name for group in self.groups if group.train == "adapter")

    @property
    def fixed_norm(self) -> frozenset[str]:
        """Names of the groups that train with fixed norm statistics."""
        return frozenset(group.name for group in self.groups if group.norm == "fixed")

    @property
    def trains_body(self) -> bool:
        """Whether any group but the head trains."""
        return any(not group.frozen for group in self.groups[:-1])

    @property
    def rates(self) -> dict[str, float]:
        """Peak rate of each group that trains."""
        return {group.name: group.lr for group in self.groups if not group.frozen}

    @property
    def trained_params(self) -> int:
        """Elements that train."""
        return sum(group.params for group in self.groups if not group.frozen)

    def record(self) -> dict[str, Any]:
        """The phase as plain values."""
        names = ("name", "epochs", "steps_per_epoch", "steps", *self.__slots__[3:-1])  # without the paces
        return {name: getattr(self, name) for name in names} | {
            "groups": [group.record() for group in self.groups],
            "cache": self.cache.record() if self.cache else None,
            "extra": self.extra.record() if self.extra else None,
        }


def _phase(record: Mapping[str, Any]) -> PhasePlan:
    """Rebuild a phase; a record of an earlier zoo may lack fields with a default."""
    values = {name: record[name] for name in PhasePlan.__slots__ if name in record and name != "paces"}
    values["groups"] = tuple(map(GroupPlan.from_record, record["groups"]))
    values["cache"] = CachePlan(**record["cache"]) if record.get("cache") else None
    values["extra"] = GroupPlan.from_record(record["extra"]) if record.get("extra") else None
    return PhasePlan(**values)


@dataclass(frozen=True, slots=True)
class Plan:
    """The exact plan of an adaptation."""

    backbone: str
    dataset: str
    phases: tuple[PhasePlan, ...]
    seconds: float | None = None  # estimated training time, that of a refit included; None: not estimated
    memory_bytes: int | None = None  # estimated peak of weights, gradients, optimizer and activations
    data_wait: float | None = None  # estimated seconds of training spent waiting for images
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Optimizer steps in all phases."""
        return sum(phase.steps for phase in self.phases)

    def record(self) -> dict[str, Any]:
        """The plan as plain values, the form of `zoo plan --json`."""
        plain = {"phases": [phase.record() for phase in self.phases], "notes": list(self.notes)}
        keys = ("backbone", "dataset", "phases", "steps", "seconds", "memory_bytes", "data_wait", "notes")
        return {key: plain[key] if key in plain else getattr(self, key) for key in keys}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Plan:
        """Rebuild a plan from its plain values."""
        values = {name: record[name] for name in cls.__slots__ if name in record}
        return cls(**values | {"phases": tuple(map(_phase, record["phases"])), "notes": tuple(record["notes"])})

    def __str__(self) -> str:
        """The plan as a plain table with a row per phase and group, and further lines."""
        record = self.record()
        rows = [row for phase in record["phases"] for row in plan_table.group_rows(phase)]
        table = aligned([plan_table.GroupRow._fields, *rows], plan_table.NUMBERS)
        title = f"Plan: {self.backbone} on {self.dataset}"
        return "\n".join([title, "", *table, "", *plan_table.lines(record)])


def with_caches(plan: Plan, caches: Mapping[str, CachePlan], reasons: Mapping[str, str]) -> Plan:
    """The plan with caches by phase name, and the reason why each phase has one or not."""
    phases = tuple(
        replace(phase, cache=caches.get(phase.name), cache_reason=reasons.get(phase.name, "")) for phase in plan.phases
    )
    return replace(plan, phases=phases)


def with_compiled(plan: Plan, names: Collection[str], notes: Sequence[str] = ()) -> Plan:
    """The plan with compiled training steps in the named phases, and further notes."""
    phases = tuple(replace(phase, compiled=phase.name in names) for phase in plan.phases)
    return replace(plan, phases=phases, notes=(*plan.notes, *notes))


def with_paces(plan: Plan, paces: Mapping[str, tuple[Pace, ...]]) -> Plan:
    """The plan with the paces of phases by name, for estimates with other epochs; records do not have them."""
    return replace(plan, phases=tuple(replace(phase, paces=paces.get(phase.name, ())) for phase in plan.phases))
