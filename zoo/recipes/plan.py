"""A plan, as records: which layer group trains in which phase, at which rate, and what that is expected to cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zoo.base.text import aligned
from zoo.recipes import plan_table

Train = Literal["all", "none", "adapter"]  # of a layer group: everything, nothing, what was added to it


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One layer group in one phase."""

    name: str
    params: int  # elements
    undecayed: int  # elements without weight decay
    lr: float  # peak rate; 0 where frozen
    weight_decay: float
    train: Train
    norm: str  # "live" | "fixed" | "frozen" | "none" (keeps no running statistics)

    @property
    def frozen(self) -> bool:
        """Whether nothing in it trains."""
        return self.train == "none"

    def record(self) -> dict[str, Any]:
        """The group as plain values: `frozen` says what trains, and `train` only where that is not enough."""
        names = ("frozen" if name == "train" else name for name in self.__slots__)
        return {name: getattr(self, name) for name in names} | (
            {"train": self.train} if self.train == "adapter" else {}
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> GroupPlan:
        """Rebuild a group from its plain values."""
        train: Train = "none" if record["frozen"] else "all"
        return cls(**{"train": train, **{name: value for name, value in record.items() if name != "frozen"}})


@dataclass(frozen=True, slots=True)
class CachePlan:
    """How a phase trains from kept activations of its frozen part."""

    group: str  # first layer group that is not wholly kept
    entry: str  # module whose input is kept
    views: int  # augmented views of each training image; the phase's epochs take them in turn
    bytes: int  # of all activations, the validation images' included

    def record(self) -> dict[str, Any]:
        """The cache as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Pace:
    """Estimated seconds of a phase, by its epochs."""

    epoch: float  # of each epoch
    once: float = 0.0  # before the first one, however many follow
    view: float = 0.0  # of keeping activations of one more view of the training images
    views: int = 0  # of these at most, one for each epoch

    def seconds(self, epochs: int) -> float:
        """Of so many epochs."""
        return self.once + self.view * min(self.views, epochs) + self.epoch * epochs

    def times(self, factor: float) -> Pace:
        """Of what takes so many times as long."""
        return replace(self, epoch=factor * self.epoch, once=factor * self.once, view=factor * self.view)


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase with everything settled; it has an optimizer and a schedule of its own."""

    name: str
    epochs: int
    steps_per_epoch: int  # optimizer steps
    schedule: str  # "one-cycle" | "cosine" | "constant"
    warmup: float  # share of the phase's steps
    groups: tuple[GroupPlan, ...]  # ordered, input to head
    cache: CachePlan | None = None  # None: every step computes the whole network
    cache_reason: str = field(default="", compare=False)  # why; it may speak of seconds that were measured
    compiled: bool = False  # whether torch.compile makes the training step
    extra: GroupPlan | None = None  # what the objective trains of its own, which is not published
    unlabelled: int = 0  # images without labels beside each batch, all views counted
    views: int = 1  # of each of these
    eligible: bool = True  # whether one of its epochs may be the one that is kept
    paces: tuple[Pace, ...] = field(default=(), compare=False)  # of each way to train it that is open; none: unknown

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
        """Names of the groups of which only what was added trains."""
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
        return {
            "name": self.name,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "steps": self.steps,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "groups": [group.record() for group in self.groups],
            "cache": self.cache.record() if self.cache else None,
            "cache_reason": self.cache_reason,
            "compiled": self.compiled,
            "extra": self.extra.record() if self.extra else None,
            "unlabelled": self.unlabelled,
            "views": self.views,
            "eligible": self.eligible,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What `adapt` will do, and runs exactly."""

    backbone: str
    dataset: str
    phases: tuple[PhasePlan, ...]
    seconds: float | None = None  # estimated training time, a second training included; None: not estimated
    memory_bytes: int | None = None  # estimated peak of weights, gradients, optimizer and activations
    data_wait: float | None = None  # estimated seconds of training in which images are not there yet
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Optimizer steps in all phases."""
        return sum(phase.steps for phase in self.phases)

    def record(self) -> dict[str, Any]:
        """The plan as plain values, the form of `zoo plan --json`."""
        return {
            "backbone": self.backbone,
            "dataset": self.dataset,
            "phases": [phase.record() for phase in self.phases],
            "steps": self.steps,
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "data_wait": self.data_wait,
            "notes": list(self.notes),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Plan:
        """Rebuild a plan from its plain values."""
        phases = tuple(
            PhasePlan(
                name=phase["name"],
                epochs=phase["epochs"],
                steps_per_epoch=phase["steps_per_epoch"],
                schedule=phase["schedule"],
                warmup=phase["warmup"],
                groups=tuple(map(GroupPlan.from_record, phase["groups"])),
                cache=CachePlan(**phase["cache"]) if phase.get("cache") else None,
                cache_reason=phase.get("cache_reason", ""),
                compiled=phase.get("compiled", False),
                extra=GroupPlan.from_record(phase["extra"]) if phase.get("extra") else None,
                unlabelled=phase.get("unlabelled", 0),
                views=phase.get("views", 1),
                eligible=phase.get("eligible", True),
            )
            for phase in record["phases"]
        )
        return cls(
            backbone=record["backbone"],
            dataset=record["dataset"],
            phases=phases,
            seconds=record["seconds"],
            memory_bytes=record["memory_bytes"],
            data_wait=record.get("data_wait"),
            notes=tuple(record["notes"]),
        )

    def __str__(self) -> str:
        """The plan as a plain table, a line per phase and group, and what there is to say below it."""
        record = self.record()
        rows = [row for phase in record["phases"] for row in plan_table.group_rows(phase)]
        table = aligned([plan_table.GroupRow._fields, *rows], plan_table.NUMBERS)
        title = f"Plan: {self.backbone} on {self.dataset}"
        return "\n".join([title, "", *table, "", *plan_table.lines(record)])


def with_caches(plan: Plan, caches: Mapping[str, CachePlan], reasons: Mapping[str, str]) -> Plan:
    """The plan with the phases that train from kept activations, by name, and why each phase does or does not."""
    phases = tuple(
        replace(phase, cache=caches.get(phase.name), cache_reason=reasons.get(phase.name, "")) for phase in plan.phases
    )
    return replace(plan, phases=phases)


def with_compiled(plan: Plan, names: Collection[str], notes: Sequence[str] = ()) -> Plan:
    """The plan with the phases, by name, whose training step is compiled, and what there is to say about it."""
    phases = tuple(replace(phase, compiled=phase.name in names) for phase in plan.phases)
    return replace(plan, phases=phases, notes=(*plan.notes, *notes))


def with_paces(plan: Plan, paces: Mapping[str, tuple[Pace, ...]]) -> Plan:
    """The plan with what each phase, by name, would take with other epochs; no record has that."""
    phases = tuple(replace(phase, paces=paces.get(phase.name, ())) for phase in plan.phases)
    return replace(plan, phases=phases)
