"""Which phases are compiled, and that it changes nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.toy import GROUPS, Toy, net, pieces, state_of
from zoo.errors import RecipeError
from zoo.recipes.plan import CachePlan, Plan, with_caches, with_compiled
from zoo.recipes.planner import make_plan
from zoo.recipes.recipe import Recipe
from zoo.training import machine
from zoo.training.autotune import compile as compiling
from zoo.training.autotune.compile import CompileChoice, choose
from zoo.training.loaded import facts

ROOT = Path(__file__).resolve().parents[3]


def decide(compile: str, seconds: float = 5000.0, device: str = "cpu", kept: tuple[str, ...] = (),
           processes: int = 1) -> CompileChoice:  # fmt: skip
    model, recipe = net(), Recipe(strategy="lp-ft", compile=compile, probe_epochs=1, epochs=9, batch_size=32)
    plan = make_plan(recipe, [facts(model, group) for group in GROUPS], backbone="kit/toy", dataset="noise",
                     steps_per_epoch=100, norm="live")  # fmt: skip
    plan = with_caches(plan, {name: CachePlan("head", "fc", 1, 1) for name in kept}, {})
    accelerator: Any = machine.make_accelerator(machine.Machine("cpu", "fp32", 1, 1))
    if device != "cpu":
        accelerator = SimpleNamespace(device=SimpleNamespace(type=device), num_processes=processes)
    return choose(plan, {"probe": 1.0, "finetune": seconds}, pieces(model, accelerator), recipe)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compiling takes a minute, and a step goes down from a second to half of one."""
    tried: list[int] = []
    monkeypatch.setattr(compiling, "_compare", lambda *_: tried.append(1) or (60.0, 1.0, 0.5))
    monkeypatch.setattr(compiling, "unable", lambda device: "")
    return tried


def test_auto_tries_long_phases_on_a_gpu_alone(timed: list[int]) -> None:
    assert decide("auto") == CompileChoice({}, ()) and not timed
    assert decide("auto", 599.0, device="cuda") == CompileChoice({}, ()) and not timed
    assert decide("auto", device="cuda") == CompileChoice({"finetune": 900 * 0.5 - 60}, ()) and len(timed) == 1


def test_auto_wants_more_than_to_break_even(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_compare", lambda *_: (60.0, 1.0, 0.9))  # saves 90 s of 900
    assert decide("auto", device="cuda") == CompileChoice({}, ())
    saved = decide("on").saved  # who asks for it gets it
    assert saved == {"probe": pytest.approx(10 - 60), "finetune": pytest.approx(90 - 60)}


def test_norms_that_processes_share_are_not_compiled(timed: list[int]) -> None:
    choice = decide("on", device="cuda", processes=2)
    assert list(choice.saved) == ["probe"], "whose norms are frozen"
    assert choice.notes == ("finetune is not compiled, because processes share the statistics of its norms",)
    assert decide("auto", device="cuda", processes=2) == CompileChoice({}, ())


def test_phases_by_name(timed: list[int]) -> None:
    assert list(decide("finetune").saved) == ["finetune"]
    assert decide("off") == CompileChoice({}, ())
    with pytest.raises(RecipeError, match="there is no phase named finish to compile"):
        decide("finish")


def test_phases_that_train_from_kept_activations_are_left_alone(timed: list[int]) -> None:
    choice = decide("on", kept=("probe",))
    assert list(choice.saved) == ["finetune"]
    assert choice.notes == ("probe is not compiled, because it trains from cached features",)


def test_without_a_compiler_training_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    choice = decide("on")
    assert choice == CompileChoice(
        {}, ("nothing is compiled: there is no C++ compiler here (looked for g++, clang++, c++)",)
    )
    monkeypatch.setenv("CXX", "mycc -m64")
    assert "(looked for mycc)" in decide("on").notes[0]


def test_whatever_goes_wrong_in_trying_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("fatal error: Python.h: No such file\nand a hundred lines more")

    monkeypatch.setattr(compiling, "_compare", fail)
    monkeypatch.setattr(compiling, "unable", lambda device: "")
    assert decide("finetune").notes == (
        "finetune is not compiled: torch.compile failed: fatal error: Python.h: No such file",
    )


def test_a_compiled_phase_trains_the_same_network_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's own tracing, with plain kernels behind it: no compiler, and seconds instead of a minute.
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: real(network, backend="eager", **options))
    recipe = Recipe(strategy="lp-ft", probe_epochs=1, epochs=2, lr=0.05, accumulate=2, ema=0.5)
    plain = Toy(tmp_path / "plain", recipe).train()
    other = Toy(tmp_path / "compiled", recipe)
    other.job = replace(other.job, plan=with_compiled(other.plan, ["finetune"]))
    assert Plan.from_record(other.job.plan.record()) == other.job.plan
    other.train()
    assert state_of(plain.model).keys() == state_of(other.model).keys()
    for name, tensor in state_of(plain.model).items():
        torch.testing.assert_close(other.model.state_dict()[name], tensor, msg=name)


@pytest.mark.heavy
def test_for_real() -> None:
    if compiling.unable("cpu"):
        pytest.skip("no C++ compiler")
    # In a process of its own, as a person has it: what others leave behind in one can keep torch from compiling.
    ask = "from tests.training.autotune.test_compile import decide; c = decide('finetune'); print(*c.saved, c.notes)"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.stdout == "finetune ()\n", done.stdout + done.stderr
