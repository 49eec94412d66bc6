"""What zoo makes of the machine it is on."""

from __future__ import annotations

import pytest
import torch

from zoo.engine import machine
from zoo.recipe import Recipe


@pytest.mark.parametrize(
    ("able", "vendor", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "GenuineIntel", "bf16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "GenuineIntel", "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "AuthenticAMD", "bf16"),
        ({"avx512_bf16": False, "amx_bf16": False}, "AuthenticAMD", "fp32"),
        ({}, "", "fp32"),  # another architecture
    ],
)
def test_bf16_is_taken_where_the_processor_gains_by_it(
    able: dict[str, bool], vendor: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(machine, "_cpu_fact", lambda name: vendor)
    assert machine.settle(Recipe(device="cpu", threads=1)).precision == precision
    assert machine.settle(Recipe(device="cpu", threads=1, precision="bf16")).precision == "bf16"  # who asks gets it
