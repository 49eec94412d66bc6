"""The recipe's fields as options: nothing missing, nothing lost on the way."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from zoo.cli.main import app
from zoo.cli.options import flag
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run


def options_of(name: str) -> dict[str, object]:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return {option: param for param in command.params for option in param.opts}


@pytest.mark.parametrize("command", ["plan", "adapt"])
def test_every_recipe_field_is_an_option_with_its_help(command):
    options = options_of(command)
    for entry in fields(Recipe):
        if entry.name == "phases":
            assert "--phases" not in options
            continue
        option = options[flag(entry.name)]
        assert option.help.startswith(entry.metadata["help"])
        if entry.default is not None and isinstance(entry.default, str | int | float):
            said = ("off", "on")[entry.default] if isinstance(entry.default, bool) else entry.default
            assert f"(default: {said})" in option.help


def test_defaults_that_depend_on_the_strategy_say_so():
    assert "(default: by strategy)" in options_of("plan")["--lr-decay"].help


def test_typed_options_reach_the_recipe(zoo_, api):
    done = zoo_("plan", "resnet_nano", "--dataset", "digits", "--strategy", "gradual", "--epochs", 4, "--lr", "2e-3",
                "--lr-decay", 0, "--clip", 0, "--group-lr", "layer4=1e-4", "--group-lr", "stem=0",
                "--train-per-class", 8, "--balance", "sampler", "--seed", 3)  # fmt: skip
    assert done.code == 0, done.err
    name, args, _ = api.calls[0]
    assert name == "plan"
    assert args == ("resnet_nano", "digits", Recipe(
        strategy="gradual", epochs=4, lr=2e-3, lr_decay=0.0, clip=0.0, group_lr={"layer4": 1e-4, "stem": 0.0},
        train_per_class=8, balance="sampler", seed=3))  # fmt: skip


def test_nothing_typed_is_the_default_recipe(zoo_, api):
    zoo_("adapt", "resnet_nano", "-d", "digits")
    assert api.calls[0][2] == {"backbone": "resnet_nano", "dataset": "digits", "recipe": Recipe(), "out": None}


def test_lr_auto(zoo_, api):
    zoo_("plan", "resnet_nano", "--dataset", "digits", "--lr", "auto")
    assert api.calls[0][1][2].lr == "auto"


def test_a_recipe_file_is_the_base_and_options_go_on_top(zoo_, api, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("backbone: vgg11_bn\ndataset: photos\nepochs: 7\nseed: 5\ngroup_lr: {head: 0.01, conv1: 0.001}\n")
    done = zoo_("plan", "--recipe", file, "--seed", 9, "--group-lr", "head=0.02")
    assert done.code == 0, done.err
    assert api.calls[0][1] == (
        "vgg11_bn", "photos", Recipe(epochs=7, seed=9, group_lr={"head": 0.02, "conv1": 0.001}))  # fmt: skip
    zoo_("plan", "resnet18", "--recipe", file, "--dataset", "digits")
    assert api.calls[1][1][:2] == ("resnet18", "digits")


def write_run(folder: Path, recipe: Recipe) -> None:
    folder.mkdir(parents=True)
    record = {"schema": 1, "recipe": recipe.record(), "resolved": {"precision": "bf16"},
              "backbone": {"name": "resnet/resnet_nano"}, "dataset": {"ref": "digits"}}  # fmt: skip
    Run(folder).write_record(record)


@pytest.mark.parametrize("reference", ["runs/old", "runs/old/run.json", "old"])
def test_a_run_is_a_recipe(zoo_, api, reference):
    write_run(Path("runs/old"), Recipe(epochs=6, precision="auto"))
    done = zoo_("adapt", "--recipe", reference, "--epochs", 2)
    assert done.code == 0, done.err
    called = api.calls[0][2]
    assert (called["backbone"], called["dataset"]) == ("resnet/resnet_nano", "digits")
    assert (called["recipe"].epochs, called["recipe"].precision) == (2, "bf16")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "--epochs", "3"), "which backbone? none was named"),
        (("adapt", "resnet_nano", "--epochs", "3"), "name one: zoo adapt resnet_nano --dataset"),
        (("plan", "m", "-d", "x", "--lr", "fast"), "--lr takes a number or auto, not 'fast'"),
        (("plan", "m", "-d", "x", "--group-lr", "layer4"), "--group-lr takes GROUP=RATE, not 'layer4'"),
        (("plan", "m", "-d", "x", "--group-lr", "=1"), "--group-lr takes GROUP=RATE, not '=1'"),
        (("plan", "m", "-d", "x", "--strategy", "magic"), "'magic' is not one of 'probe'"),
        (("plan", "m", "-d", "x", "--epochs", "many"), "Invalid value for '--epochs'"),
        (("plan", "m", "-d", "x", "--epochs", "0", "--warmup", "2"), "epochs: must"),
        (("plan", "m", "-d", "x", "--epochs", "0", "--warmup", "2"), "warmup: must lie between 0 and 0.9, not 2"),
        (("plan", "m", "-d", "x", "--epoch", "3"), "--epochs"),
        (("plan", "m", "x"), "zoo plan --help"),
        (("adopt",), "adapt"),
    ],
)
def test_wrong_usage_is_code_2_and_says_what_to_type(zoo_, api, words, message):
    done = zoo_(*words)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
    assert not api.calls


def test_a_recipe_file_that_is_not_there_is_a_failure_not_wrong_usage(zoo_, api):
    done = zoo_("plan", "--recipe", "absent.yaml")
    assert done.code == 1
    assert "cannot read the recipe absent.yaml" in done.err


def test_a_resumed_run_stays_in_its_folder(zoo_, api):
    done = zoo_("adapt", "--resume", "runs/a", "--out", "b")
    assert done.code == 2
    assert "a resumed run stays in its folder" in done.err
    assert "zoo adapt --resume runs/a" in done.err
    assert not api.calls


def test_resume_passes_the_run_alone(zoo_, api):
    assert zoo_("adapt", "--resume", "runs/a").code == 0
    assert api.calls == [("adapt", (), {"resume": "runs/a", "backbone": None, "dataset": None})]


def test_what_is_typed_beside_resume_is_compared_with_the_runs_own_recipe(zoo_, api):
    write_run(Path("runs/a"), Recipe(lr=0.003, epochs=7))
    assert zoo_("adapt", "resnet_nano", "--resume", "a", "--lr-decay", 0.5).code == 0
    ((_, _, passed),) = api.calls
    assert passed == {"resume": "a", "backbone": "resnet_nano", "dataset": None, "recipe": passed["recipe"]}
    assert (passed["recipe"].lr, passed["recipe"].epochs, passed["recipe"].lr_decay) == (0.003, 7, 0.5)


def shown(text: str) -> set[str]:
    """The options that a help page has a row for."""
    return set(re.findall(r"^[│|]\s+(--[\w-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("command", ["adapt", "plan", "compare", "rank"])
def test_help_shows_a_dozen_options_and_help_all_the_rest(zoo_, command):
    every = {name for name in options_of(command) if name.startswith("--") and not name.startswith("--no-")}
    few, all_of_them = zoo_(command, "--help"), zoo_(command, "--help-all")
    assert (few.code, all_of_them.code) == (0, 0)
    assert shown(all_of_them.out) == every | {"--help"}
    assert {"--dataset", "--recipe", "--epochs", "--device", "--json", "--help-all"} <= shown(few.out)
    assert shown(few.out) < shown(all_of_them.out)
    assert len(shown(few.out) - {"--help", "--help-all"}) <= 14
    assert shown(zoo_(command, "--help").out) == shown(few.out)  # nothing is left of the other page


@pytest.mark.parametrize("command", ["adapt", "plan", "compare", "rank"])
def test_a_bare_command_prints_its_usage(zoo_, api, command):
    done = zoo_(command)
    assert done.code == 2
    assert done.out.startswith(f"Usage: zoo {command} [OPTIONS]")
    assert f"\n    zoo {command} " in done.out
    assert f"zoo {command} --help" in done.out
    assert len(done.out.splitlines()) < 20
    assert not api.calls


def test_a_bare_command_with_json_answers_with_json(zoo_, api):
    done = zoo_("adapt", "--json")
    assert done.code == 2
    assert done.json["error"]["what"] == "which backbone? none was named"
