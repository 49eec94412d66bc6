"""The card claims nothing that run.json does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from zoo.runs.publish import model_card
from zoo.runs.run_folder import Run


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from leaves(entry)
    else:
        yield value


def test_every_figure_on_the_card_is_in_run_json(finished: Run) -> None:
    record = finished.record
    body = model_card(record, repo="tester/tints").split("\n---\n", 1)[1]
    body = re.sub(r"```.*?```|<code>.*?</code>|&#\d+;|https?://\S+", " ", body, flags=re.DOTALL)
    known = list(leaves(record))
    numbers = [float(value) for value in known if isinstance(value, int | float) and not isinstance(value, bool)]
    words = " ".join(value for value in known if isinstance(value, str))
    low, high = record["result"]["interval"]
    trained = [group for phase in record["plan"]["phases"] for group in phase["groups"] if not group["frozen"]]
    numbers += [
        95.0,  # the interval's level
        100 * (high - low),  # its width
        float(len(record["dataset"]["classes"])),
        float(sum(group["params"] for group in trained)),
    ]
    numbers += [float(number) for number in range(1, len(record["plan"]["phases"]) + 1)]  # "1. probe"
    found = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", body)
    assert len(found) > 30
    for text in found:
        text = text.rstrip(",")
        if text in words:  # a version, a split's name
            continue
        shown = float(text.replace(",", ""))
        digits = len(text.partition("e")[0].partition(".")[2])
        unit = 0.5 * 10.0**-digits * (10.0 ** int(text.partition("e")[2]) if "e" in text else 1.0) + 1e-9
        assert any(abs(value - shown) <= unit or abs(100 * value - shown) <= unit for value in numbers), text
