from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.toy import Toy, same, state_of
from zoo.errors import RunError, TrainingError, TrainingInterrupted
from zoo.events import CheckpointSaved, EpochDone, Note, StepDone
from zoo.recipes.recipe import Recipe
from zoo.training.state.checkpoint import load_checkpoint, save_checkpoint
from zoo.training.state.signals import Stopping

RECIPE = Recipe(
    strategy="lp-ft", probe_epochs=2, epochs=3, lr=0.05, ema=0.8, mixup=0.4, accumulate=2, patience=3, seed=5
)
EVERY_STEP = replace(RECIPE, checkpoint_every="1 step")
STEPS = 10  # two a pass, five passes


def log(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def last_state(folder: Path) -> dict[str, Any]:
    state, damaged = load_checkpoint(folder / "checkpoints")
    assert state is not None and not damaged
    del state["position"]["seconds"], state["position"]["waited"]
    return state


def stop_at(toy: Toy, kind: type, number: int, with_signal: int = signal.SIGINT) -> None:
    """Send this process a signal when the toy reports its n-th event of a kind."""
    left = [number]

    def watch(event: object) -> None:
        if isinstance(event, kind):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), with_signal)

    toy.listeners.append(watch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    """The same training without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, Toy(folder, RECIPE).train()


@pytest.mark.parametrize(
    ("kind", "number"),
    [(StepDone, number) for number in range(1, STEPS + 1)] + [(EpochDone, number) for number in range(1, 6)],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, whole: tuple[Path, Toy], kind: type, number: int
) -> None:
    first = Toy(tmp_path, RECIPE)
    stop_at(first, kind, number)
    with pytest.raises(TrainingInterrupted) as caught:
        first.train()
    done = number if kind is StepDone else number * 2
    assert caught.value.what == f"stopped at step {done}; the state is saved"
    assert caught.value.fix == f"go on with it: zoo adapt --resume {tmp_path}"
    assert caught.value.signal_number == signal.SIGINT
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 99}\n{"half a li')  # what a killed process may leave behind
    second = Toy(tmp_path, RECIPE).train()
    folder, expected = whole
    assert same(state_of(second.model), state_of(expected.model))
    assert log(tmp_path) == log(folder)
    assert second.session.position.best == expected.session.position.best
    assert last_state(tmp_path)["position"] == last_state(folder)["position"]


def test_the_optimizer_too_is_the_same_after_a_resume(tmp_path: Path) -> None:
    """Both runs are stopped at step 9, one of them at step 7 as well: their states are alike to the bit."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder, stops in ((once, [9]), (twice, [7, 2])):
        for number in stops:
            toy = Toy(folder, RECIPE)
            stop_at(toy, StepDone, number, signal.SIGTERM)
            with pytest.raises(TrainingInterrupted) as caught:
                toy.train()
            assert caught.value.signal_number == signal.SIGTERM
    one, other = last_state(once), last_state(twice)
    assert one["position"] == other["position"] and one["position"]["step"] == 9
    assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
    for key, slots in one["optimizer"]["state"].items():
        assert all(torch.equal(slots[name], other["optimizer"]["state"][key][name]) for name in slots)
    assert same(one["model"], other["model"]) and same(one["average"], other["average"])


def test_states_are_saved_as_time_goes_by_and_a_killed_run_goes_on_from_the_last(
    tmp_path: Path, whole: tuple[Path, Toy]
) -> None:

    class Killed(Exception):
        pass

    first = Toy(tmp_path, EVERY_STEP)

    def watch(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            raise Killed

    first.listeners.append(watch)
    with pytest.raises(Killed):
        first.train()
    assert first.heard(CheckpointSaved)[-1].step == 5
    assert len(list(tmp_path.glob("checkpoints/step-*.pt"))) == 2
    second = Toy(tmp_path, RECIPE).train()
    assert second.heard(StepDone)[0].step == 6
    assert same(state_of(second.model), state_of(whole[1].model)) and log(tmp_path) == log(whole[0])


def stopped(folder: Path, number: int = 8) -> None:
    """A run that was stopped, with states of its last two steps."""
    toy = Toy(folder, EVERY_STEP)
    stop_at(toy, StepDone, number)
    with pytest.raises(TrainingInterrupted):
        toy.train()


def test_a_damaged_state_is_passed_over_and_said_so(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    stopped(tmp_path)
    newest = tmp_path / "checkpoints" / "step-000000008.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    toy = Toy(tmp_path, RECIPE).train()
    (note,) = toy.heard(Note)
    assert note.text == "the checkpoint step-000000008.pt is damaged (its hash differs); using the one before"
    assert toy.heard(StepDone)[0].step <= 8
    assert same(state_of(toy.model), state_of(whole[1].model)) and log(tmp_path) == log(whole[0])


def test_without_any_good_state_it_starts_over_and_says_so(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    stopped(tmp_path)
    for path in tmp_path.glob("checkpoints/step-*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    toy = Toy(tmp_path, RECIPE).train()
    assert [note.text.rpartition("; ")[2] for note in toy.heard(Note)] == ["using the one before", "starting over"]
    assert same(state_of(toy.model), state_of(whole[1].model)) and log(tmp_path) == log(whole[0])


@pytest.mark.parametrize("accident", ["gone", "damaged"])
def test_a_state_without_its_best_weights_is_passed_over(
    tmp_path: Path, whole: tuple[Path, Toy], accident: str
) -> None:
    """The state before it stands at the same step, before the evaluation that found the best."""
    toy = Toy(tmp_path, EVERY_STEP)
    bests: list[int] = []

    def watch(event: object) -> None:
        if isinstance(event, EpochDone) and event.best:
            bests.append(toy.session.position.step)
            if len(bests) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    toy.listeners.append(watch)
    with pytest.raises(TrainingInterrupted):
        toy.train()
    best = tmp_path / "checkpoints" / f"best-{bests[-1]:09d}.safetensors"
    if accident == "gone":
        best.unlink()
    else:
        content = bytearray(best.read_bytes())
        content[-1] ^= 1
        best.write_bytes(content)
    again = Toy(tmp_path, RECIPE).train()
    (note,) = again.heard(Note)
    why = "is gone" if accident == "gone" else "is damaged: its hash differs"
    newest = f"step-{bests[-1]:09d}-2.pt"  # the first state of that step is of before the evaluation
    assert note.text == f"the checkpoint {newest} cannot be used ({best.name} {why}); using the one before"
    assert again.heard(EpochDone)[0].best
    assert same(state_of(again.model), state_of(whole[1].model)) and log(tmp_path) == log(whole[0])


def test_damaged_best_weights_are_named(tmp_path: Path) -> None:
    toy = Toy(tmp_path, RECIPE)

    def spoil(event: object) -> None:
        if isinstance(event, EpochDone):
            for path in tmp_path.glob("checkpoints/best-*"):
                path.write_bytes(b"not tensors")

    toy.listeners.append(spoil)
    with pytest.raises(RunError, match="the best weights of the run are damaged") as caught:
        toy.train()
    assert caught.value.fix == f"train again from a state before them: zoo adapt --resume {tmp_path}"


def test_best_weights_that_a_kept_state_needs_are_kept(tmp_path: Path) -> None:
    toy = Toy(tmp_path, EVERY_STEP)
    needed: set[str] = set()

    def watch(event: object) -> None:
        if isinstance(event, CheckpointSaved | EpochDone):
            for path in tmp_path.glob("checkpoints/step-*.json"):
                needs = json.loads(path.read_text())["needs"]
                assert all((tmp_path / "checkpoints" / name).is_file() for name in needs)
                needed.update(needs)

    toy.listeners.append(watch)
    toy.train()
    assert needed


def test_a_signal_during_the_last_evaluation_is_not_lost(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    toy = Toy(tmp_path, RECIPE)
    stop_at(toy, EpochDone, 5)
    with pytest.raises(TrainingInterrupted):
        toy.train()
    assert same(state_of(Toy(tmp_path, RECIPE).train().model), state_of(whole[1].model))


def test_after_the_last_phase_a_signal_stops_at_once_and_nothing_is_trained_again(
    tmp_path: Path, whole: tuple[Path, Toy]
) -> None:
    toy = Toy(tmp_path, RECIPE)
    with toy.session.stoppable():
        from zoo.training.loop import train

        train(toy.job, toy.session)
        with pytest.raises(TrainingInterrupted):
            os.kill(os.getpid(), signal.SIGTERM)
    again = Toy(tmp_path, RECIPE).train()
    assert not again.heard(StepDone)
    assert same(state_of(again.model), state_of(whole[1].model)) and log(tmp_path) == log(whole[0])


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    toy = Toy(tmp_path, RECIPE)
    stop_at(toy, StepDone, 1)
    stop_at(toy, StepDone, 1)
    with pytest.raises(KeyboardInterrupt):
        toy.train()


def test_a_signal_that_comes_while_processes_ask_each_other_counts_at_the_next_step() -> None:
    stopping, heard = Stopping(), []

    class Two:
        num_processes, device = 2, torch.device("cpu")
        asked = 0

        def gather(self, mine: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            if self.asked == 1:
                signal.raise_signal(signal.SIGTERM)
            return torch.cat([mine, torch.zeros(1)])

    both: Any = Two()
    with stopping.remembering(lambda: heard.append(stopping.signal)):
        answers = [stopping.is_set(both) for _ in range(2)]
    assert answers == [False, True] and heard == [signal.SIGTERM] and stopping.signal == signal.SIGTERM


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    toy = Toy(tmp_path, RECIPE)
    stop_at(toy, StepDone, 1)
    with pytest.raises(TrainingInterrupted):
        toy.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_training_in_another_thread_leaves_signals_alone(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    toy = Toy(tmp_path, RECIPE)
    thread = threading.Thread(target=toy.train)
    thread.start()
    thread.join()
    assert same(state_of(toy.model), state_of(whole[1].model))


def test_states_are_saved_by_steps_and_as_many_are_kept_as_asked_for(tmp_path: Path) -> None:
    toy = Toy(tmp_path, replace(RECIPE, checkpoint_every="3 steps", checkpoint_keep=3)).train()
    assert [event.step for event in toy.heard(CheckpointSaved)] == [3, 6, 9]
    assert sorted(path.name for path in tmp_path.glob("checkpoints/step-*.pt")) == [
        "step-000000006.pt", "step-000000009.pt", "step-000000010.pt",  # the last one says that training is done
    ]  # fmt: skip


def test_a_state_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Between its two files a kill would leave neither the old state nor the new one."""
    paths = [save_checkpoint(tmp_path, 7, {"number": number}, needs={}, keep=12) for number in range(11)]
    assert [path.name for path in paths[:2]] == ["step-000000007.pt", "step-000000007-2.pt"]
    state, damaged = load_checkpoint(tmp_path)
    assert state == {"number": 10} and not damaged
    assert save_checkpoint(tmp_path, 8, {}, needs={}).name == "step-000000008.pt"
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step-000000007-11.pt", "step-000000008.pt"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    toy = Toy(tmp_path, replace(EVERY_STEP, probe_epochs=0))

    def spoil(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            with torch.no_grad():
                toy.model.fc.weight[0, 0] = float("nan")

    toy.listeners.append(spoil)
    with pytest.raises(TrainingError) as caught:
        toy.train()
    assert caught.value.what == "the weights are not finite after step 3, so they were not saved"
    assert caught.value.why.endswith("first: fc.weight")
    assert last_state(tmp_path)["position"]["step"] == 2


def test_a_state_is_tensors_and_plain_values_with_a_hash(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, {"tensor": torch.ones(2), "position": {"step": 7}}, needs={"best.pt": "abc"})
    assert torch.load(path, weights_only=True)["position"] == {"step": 7}
    record = json.loads(path.with_suffix(".json").read_text())
    assert len(record["sha256"]) == 64 and record["step"] == 7 and record["needs"] == {"best.pt": "abc"}


@pytest.mark.parametrize("record", ["", "[]", "{}", None], ids=["empty", "list", "no hash", "absent"])
def test_a_state_whose_hash_cannot_be_read_counts_as_unfinished(tmp_path: Path, record: str | None) -> None:
    path = save_checkpoint(tmp_path, 7, {"tensor": torch.ones(2)}, needs={})
    path.with_suffix(".json").unlink() if record is None else path.with_suffix(".json").write_text(record)
    state, damaged = load_checkpoint(tmp_path)
    assert state is None and len(damaged) == 1
    assert damaged[0].startswith("the checkpoint step-000000007.pt cannot be read (")


def test_a_pickled_stranger_is_not_unpickled(tmp_path: Path) -> None:
    class Stranger:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "run by the pickle"),))

    save_checkpoint(tmp_path, 7, {"state": Stranger()}, needs={})
    state, damaged = load_checkpoint(tmp_path)
    assert state is None and len(damaged) == 1
    assert not (tmp_path / "run by the pickle").exists()
