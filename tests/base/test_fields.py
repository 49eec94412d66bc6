from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from zoo.base.fields import choice, field_faults


@dataclass
class Order:
    size: str = choice("small", "How big.", choices=("small", "large"))
    fruit: str = choice("pear", "Which.", choices=("pear", "fig", "any"), several=("pear", "fig"))
    count: int = choice(1, "How many.", low=1, high=9)
    weight: float = choice(1.0, "Grams.", more_than=0)
    price: float | None = choice(None, "At most.", low=0)
    note: str | None = choice(None, "For the kitchen.")
    tags: dict[str, str] = choice(dict, "Whatever.")  # noqa: RUF009 - it is field() with metadata


FIELDS = {entry.name: entry for entry in fields(Order)}


@pytest.mark.parametrize(
    ("name", "value", "faults"),
    [
        ("size", "large", []),
        ("size", "huge", ["size: 'huge' is not one of small, large"]),
        ("size", None, ["size: must not be empty"]),
        ("size", [], ["size: [] is not one of small, large"]),
        ("fruit", "fig,pear", []),
        ("fruit", "any", []),
        *(
            (
                "fruit",
                wrong,
                [f"fruit: {wrong!r} is not one of pear, fig, any, nor several of pear, fig with commas between"],
            )
            for wrong in ("fig,fig", "fig,any", "fig,", "plum", "plum,fig")
        ),
        ("count", 9, []),
        ("count", 10, ["count: must lie between 1 and 9, not 10"]),
        ("count", 2.0, ["count: must be a whole number, not 2.0"]),
        ("count", True, ["count: must be a number, not True"]),
        ("count", "2", ["count: must be a number, not '2'"]),
        ("weight", 3, []),
        ("weight", 0, ["weight: must be more than 0, not 0"]),
        ("weight", float("nan"), ["weight: must be a number, not nan"]),
        ("weight", float("inf"), ["weight: must be a number, not inf"]),
        ("price", None, []),
        ("price", -1, ["price: must be at least 0, not -1"]),
        ("note", "", ["note: must be a text"]),
        ("note", 3, ["note: must be a text"]),
        ("note", None, []),
    ],
)
def test_each_limit_has_its_sentence(name, value, faults):
    # dataclasses keeps types as texts only under postponed evaluation, which field_faults reads.
    assert field_faults(FIELDS[name], value) == faults


def test_a_callable_default_is_made_anew():
    assert Order().tags == {} and Order().tags is not Order().tags
    assert FIELDS["tags"].metadata["help"] == "Whatever."
