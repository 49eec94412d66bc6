"""What can befall the process itself: no memory, a loader's process killed, a loss that explodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.faults.record import ONE_ERROR, Try
from tests.faults.runs import RECIPES, Case, one_error
from zoo.training.state.checkpoint import load_checkpoint

# The worker dies between two steps or within one: the main process must not be torn out of it.
KILL_A_WORKER = """
import os, signal, multiprocessing
from zoo.training import loop
original, seen = loop.set_rates, []
def kill(*values, **named):
    seen.append(1)
    children = multiprocessing.active_children()
    if len(seen) == 3 and children:
        os.kill(children[0].pid, signal.SIGKILL)
    return original(*values, **named)
loop.set_rates = kill
"""


def test_a_loader_process_that_is_killed(case: Case, faults: Try) -> None:
    with faults("process", "a killed loader process", "SIGKILL, two workers") as fault:
        more = ("--workers", 2, "--cache", "off", "--checkpoint-every", "1h")
        ended = case.start(None, *more, before=KILL_A_WORKER)
        one_error(ended, "a process that loads images was killed", "--workers 0", "the state is saved, go on with it")
        state, damaged = load_checkpoint(case.run / "checkpoints")
        lines = [json.loads(line) for line in (case.run / "metrics.jsonl").read_text().splitlines()]
        assert state is not None and not damaged
        assert state["position"]["step"] == max(line["step"] for line in lines), "saved where it stood"
        done = case.resume(None, "--workers", 0)
        assert done.code == 0, done.err
        # Workers change nothing; the cache of the other run does not either, where all views are kept anew.
        plain = replace(case, folder=case.folder.with_name("plain"))
        plain.folder.mkdir()
        assert plain.start(None, "--cache", "off").code == 0
        for name in ("model.safetensors", "verify.safetensors"):
            assert (case.run / name).read_bytes() == (plain.run / name).read_bytes()
        fault.survived(ONE_ERROR)


# Or the steps would be done in what the estimate freed.
GIVE_BACK = "from zoo.training import machine; machine.keep_freed_memory = lambda: False"


def test_no_memory_in_a_step(case: Case, faults: Try) -> None:
    with faults("process", "out of memory in a step", "8 MB more") as fault:
        more = ("--batch-size", 16, "--image-size", 640, "--cache", "off")  # tensors too large for what was freed
        ended = case.start(None, *more, memory=8 * 2**20, before=GIVE_BACK)
        one_error(ended, "out of memory with batches of 16 images of 640 x 640 pixels")
        one_error(ended, "try --batch-size 8 --accumulate 2, or a smaller --image-size")
        assert json.loads((case.run / "run.json").read_text())["status"] == "failed"
        fault.survived(ONE_ERROR)


SPOIL = """
from zoo.data.batches.maker import Maker
original, seen = Maker.finish, []
def finish(self, packed, device):
    batch = original(self, packed, device)
    if self.view.random:
        seen.append(1)
        if len(seen) == {number}:
            batch.images[0, 0, 0, 0] = float("nan")
    return batch
Maker.finish = finish
"""


def test_a_loss_that_is_no_number(case: Case, faults: Try) -> None:
    """Such an image is met once: when the run goes on without it, it ends as if there had been none."""
    with faults("process", "a loss that is not finite", "a NaN in an image") as fault:
        ended = case.start(None, "--cache", "off", before=SPOIL.format(number=15))
        one_error(ended, "the loss is nan at step ", "in this step: ", ".png", "--lr")
        state, damaged = load_checkpoint(case.run / "checkpoints")
        assert state is not None and not damaged
        assert case.resume().code == 0
        plain = replace(case, folder=case.folder.with_name("plain"))
        plain.folder.mkdir()
        assert plain.start(None, "--cache", "off").code == 0
        assert (case.run / "model.safetensors").read_bytes() == (plain.run / "model.safetensors").read_bytes()
        fault.survived(ONE_ERROR)


def test_a_rate_at_which_it_explodes(case: Case, tmp_path: Path, faults: Try) -> None:
    with faults("process", "a loss that is not finite", "a rate of 100") as fault:
        wild = replace(RECIPES["finetune"], lr=100.0, optimizer="sgd", clip=0.0, mixup=0.0, checkpoint_every="1 step")
        recipe = tmp_path / "wild.yaml"
        recipe.write_text(wild.to_yaml())
        ended = replace(case, recipe=recipe).start()
        one_error(ended, "try a tenth of the rate with --lr")
        state, damaged = load_checkpoint(case.run / "checkpoints")
        assert not damaged
        assert state is None or all(tensor.isfinite().all() for tensor in state["model"].values())
        fault.survived(ONE_ERROR)
