"""What zoo makes of the machine it is on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zoo.errors import RecipeError
from zoo.recipes.recipe import Recipe
from zoo.training import machine


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


def test_gradients_of_several_tasks_are_not_compared_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "devices", lambda: ["cpu", "cuda"])
    monkeypatch.setattr(machine, "_best_precision", lambda device: "fp16")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = Recipe(tasks=("a=t.csv:a", "b=t.csv:b"), task_weighting="pcgrad", device="cuda", threads=1)
    assert machine.settle(asked).precision == "fp32"
    assert machine.settle(Recipe(device="cuda", threads=1)).precision == "fp16"
    with pytest.raises(RecipeError) as caught:
        machine.settle(replace(asked, precision="fp16"))
    assert caught.value.what == "pcgrad does not work in fp16" and "--precision fp32" in caught.value.fix


@pytest.mark.parametrize(
    ("said", "threads"),
    [("3", 3), (" 2,1", 2), ("99999", 1024), ("", None), ("0", None), ("-1", None), ("many", None)],
)
def test_omp_num_threads_is_the_default_of_threads(
    said: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(machine, "_cores", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    settled = machine.settle(Recipe(device="cpu"))
    assert settled.threads == (threads or 7) and set_to == [settled.threads]
    assert machine.environment(settled)["threads"] == settled.threads
    assert machine.settle(Recipe(device="cpu", threads=5)).threads == 5  # what is typed comes first


@pytest.mark.parametrize("launcher", ["TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"])
def test_what_a_launcher_sets_by_itself_is_nobodys_choice(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(machine, "_cores", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(launcher, "no")
    assert machine.settle(Recipe(device="cpu")).threads == 7
