"""Every reader of files from outside, fed with what nobody would write: a ZooError or an answer, nothing else."""

from __future__ import annotations

import copy
import io
import json
import operator
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tests.data.pictures import encoded, picture
from tests.faults.hostile import limited
from tests.faults.record import ONE_ERROR, Try
from tests.faults.test_hostile_weights import nano
from tests.runs.report.fixture import make_run
from zoo.base import registry
from zoo.cli import runs
from zoo.data import DataOptions
from zoo.data.sources import archive, table
from zoo.data.store.decode import UnreadableImage, decode, no_warnings
from zoo.errors import ZooError
from zoo.models import preprocessing, saved, weights
from zoo.models.plugins.manifest import read_manifest
from zoo.models.tensor_files import file_sha256, read_tensors
from zoo.runs.publish.card import model_card
from zoo.runs.recipe_file import read_recipe, recipe_of_run
from zoo.runs.run_folder import Run
from zoo.training.state.checkpoint import load_checkpoint, needed_files, save_checkpoint

QUICK = 40  # inputs for each reader, always the same ones
LONG = 2000  # others every time
MOST_TEXT = 20_000  # characters of a message, which quotes what it is about
examples = pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.heavy)])

ODD_TEXTS = ["", "\0", "\x1b[2J", "<script>", "../../etc/passwd", "a" * 3000, "é", "\u202e", "NaN", "1e999", "~", "---"]
ODD_NUMBERS = [0, -1, 2**31, 2**63, -(2**64), 10**30, 0.0, -0.5, 1e308, float("inf"), float("nan"), True]
leaves = st.none() | st.sampled_from(ODD_TEXTS) | st.sampled_from(ODD_NUMBERS) | st.text(max_size=20) | st.integers()
junk = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def search(check: Callable[[Any], None], inputs: st.SearchStrategy[Any], count: int) -> None:
    """Run a check on many inputs; what fails is made small before it is shown."""
    quick = count == QUICK
    phases = [Phase.explicit, Phase.generate] if quick else [Phase.explicit, Phase.generate, Phase.shrink]
    chosen = settings(max_examples=count, deadline=None, derandomize=quick, database=None, phases=phases,
                      suppress_health_check=list(HealthCheck))  # fmt: skip
    with limited(60 if quick else 1200), no_warnings():
        chosen(given(inputs)(check))()


def answered(call: Callable[[], Any]) -> Any:
    """The answer, or None after one clear error."""
    try:
        return call()
    except ZooError as error:
        assert len(str(error)) < MOST_TEXT
        return None


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """Something good with a few parts of it replaced, removed or wrapped."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        at: Any = value
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = at[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                at = inner
                continue
            change = draw(st.sampled_from(["replace", "remove", "wrap", "add"]))
            if change == "remove":
                del at[key]
            elif change == "wrap":
                at[key] = [inner]
            elif change == "add" and isinstance(at, dict):
                at[draw(st.text(max_size=8))] = draw(junk)
            else:
                at[key] = draw(junk)
            break
    return value


@st.composite
def spoiled(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes with some overwritten, cut out, put in, or the end missing."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(["set", "set", "set", "cut", "insert", "end", "number"]))
        if change == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif change == "number" and len(data) >= at + 4:
            struct.pack_into(
                draw(st.sampled_from(["<I", ">I"])), data, at, draw(st.sampled_from([0, 1, 2**31, 2**32 - 1]))
            )
        elif change == "end":
            del data[at:]
    return bytes(data)


def plain(value: Any) -> str:
    """JSON with what JSON forbids and Python writes all the same."""
    return json.dumps(value)


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True)


MANIFEST = {
    "api": 1, "name": "x", "summary": "s", "module": "a.b",
    "groups": [{"name": "stem", "match": "conv"}, {"name": "head", "match": "fc"}],
    "backbones": [{"name": "b", "arch": "test_resnet", "params": 5, "input": 64, "weights": [
        {"name": "w", "source": "hf-hub", "repo": "a/b", "sha256": "0" * 64, "num_classes": 2, "labels": ["a", "b"],
         "mean": [0.5], "std": [0.5], "crop_pct": 0.9, "interpolation": "bicubic", "model_args": {"a": 1}}]}],
}  # fmt: skip
REGISTRY = {
    "plugins": {"p": {"requirement": "p", "summary": "s", "homepage": "h", "backbones": ["b"], "published": False}},
    "datasets": {"d": {"hub": "a/b", "summary": "s", "splits": {"train": "train", "test": "t"}, "classes": 3,
                       "hflip": False, "gated": True, "config": "c", "image": "i", "label": "l"}},
}  # fmt: skip
RECIPE = {
    "backbone": "resnet_nano", "dataset": "digits", "strategy": "lp-ft",
    "phases": [{"name": "p", "epochs": 1, "lr": 0.1, "train_from": "head", "lr_decay": 0.5}],
    "group_lr": {"a": 0.1}, "mixup": 0.1, "cache": "on",
    "weights": "default", "seed": 3, "precision": "auto", "image_size": 64,
}  # fmt: skip
CONFIG = {
    "architecture": "test_resnet", "num_classes": 3, "num_features": 64, "label_names": ["a", "b", "c"],
    "model_args": {"in_chans": 3, "drop_rate": 0.1}, "zoo": {"run": "x", "requires": None},
    "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic",
                       "crop_pct": 1.0, "crop_mode": "center", "classifier": "fc", "first_conv": "conv1.0",
                       "num_classes": 3, "license": "mit", "tag": "x", "pool_size": [2, 2], "fixed_input_size": False},
}  # fmt: skip


@examples
@pytest.mark.parametrize("kind", ["manifest", "registry", "recipe"])
def test_yaml_files(faults: Try, tmp_path: Path, kind: str, count: int) -> None:
    good = {"manifest": MANIFEST, "registry": REGISTRY, "recipe": RECIPE}[kind]
    path = tmp_path / "zoo.yaml"
    read: Callable[[], Any] = {
        "manifest": partial(read_manifest, path, entry_point="x", distribution="d", version="1"),
        "registry": partial(registry._read, path),
        "recipe": partial(read_recipe, path),
    }[kind]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        registry._parse.cache_clear()
        answered(read)

    texts = changed(good).map(as_yaml).map(str.encode)
    with faults("fuzz", kind, f"{count} files") as fault:
        path.write_text(as_yaml(good))
        read()
        search(check, texts | spoiled(as_yaml(good).encode()) | st.binary(max_size=60), count)
        fault.survived(ONE_ERROR)


@examples
def test_run_json(faults: Try, tmp_path: Path, count: int) -> None:
    run = make_run(tmp_path, per_class=2, curves=False)
    good = run.record

    def check(content: bytes) -> None:
        run.record_path.write_bytes(content)
        read_in_every_way(run)

    with faults("fuzz", "run.json", f"{count} files") as fault:
        search(check, changed(good).map(plain).map(str.encode) | spoiled(plain(good).encode()), count)
        fault.survived(ONE_ERROR)


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["missing", "null", "empty"])
def test_a_record_of_which_one_value_is_gone(faults: Try, tmp_path: Path, how: str) -> None:
    """Each in turn, which chance does not reach."""
    run = make_run(tmp_path, per_class=2, curves=False)
    good = plain(run.record)

    def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if at:
            yield at
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            yield from places(value[key], (*at, key))

    with faults("fuzz", "run.json", f"each value {how}") as fault:
        for *within, last in places(json.loads(good)):
            changed = json.loads(good)
            holder = reduce(operator.getitem, within, changed)
            if how == "missing":
                del holder[last]
            elif how == "null":
                holder[last] = None
            elif isinstance(holder[last], dict | list):
                holder[last].clear()
            run.record_path.write_text(plain(changed))
            read_in_every_way(run)
        fault.survived(ONE_ERROR)


def read_in_every_way(run: Run) -> None:
    """As list, eval, predict, push and adapt --recipe do."""
    for cell in runs._cells(runs._row(run)):
        assert isinstance(cell, str)
    record = answered(lambda: run.record)
    if record is None:
        return
    answered(lambda: run.result)
    answered(lambda: recipe_of_run(record))
    answered(lambda: read_recipe(run.path))
    card = model_card(record)
    assert isinstance(yaml.safe_load(card.split("---\n", 2)[1]), dict)


@examples
def test_config_json(faults: Try, tmp_path: Path, count: int) -> None:
    from tests.faults.test_hostile_weights import hub_model

    folder = hub_model(tmp_path / "m")
    good = json.loads((folder / "config.json").read_text()) | CONFIG | {"num_classes": 200, "label_names": None}
    good["pretrained_cfg"] = CONFIG["pretrained_cfg"] | {"num_classes": 200}  # type: ignore[operator]

    def check(content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        answered(lambda: weights.resolve_weights(nano(), str(folder)))
        model = answered(lambda: saved.load(folder))
        if model is not None:
            config = preprocessing.data_config(model)
            assert max(config.input_size[1:]) <= 4096
            assert all(isinstance(name, str) for name in saved.labels(model, None))

    with faults("fuzz", "config.json", f"{count} files") as fault:
        (folder / "config.json").write_text(plain(good))
        assert saved.load(folder).num_classes == 200  # type: ignore[comparison-overlap]
        search(check, changed(good).map(plain).map(str.encode) | spoiled(plain(good).encode()), count)
        fault.survived(ONE_ERROR)


@examples
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_files_of_tensors(faults: Try, tmp_path: Path, kind: str, count: int) -> None:
    import torch

    facts = {"architecture": "test_resnet", "num_classes": "3", "input": "64", "mean": "[0.5]", "model_args": "{}"}
    tensors = {"fc.weight": torch.ones(3, 4), "x": torch.zeros(2, dtype=torch.float16)}
    path = tmp_path / f"w.{kind}"
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    good = save(tensors, facts) if kind == "safetensors" else buffer.getvalue()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        answered(lambda: read_tensors(path))
        answered(lambda: weights.resolve_weights(nano(), str(path)))

    def with_metadata(changes: dict[str, Any]) -> bytes:
        return save(tensors, {**facts, **{key: json.dumps(value) for key, value in changes.items()}})

    inputs: st.SearchStrategy[bytes] = spoiled(good)
    if kind == "safetensors":
        inputs |= st.dictionaries(st.sampled_from([*facts, "labels", "std", "crop_pct", "license"]), junk).map(
            with_metadata
        )
    with faults("fuzz", f".{kind}", f"{count} files") as fault:
        search(check, inputs, count)
        fault.survived(ONE_ERROR)


@examples
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables(faults: Try, tmp_path: Path, kind: str, count: int) -> None:
    import pandas as pd

    path = tmp_path / f"t.{kind}"
    rows = [{"path": f"{n}.png", "label": "ab"[n % 2], "split": ["train", "val"][n % 2]} for n in range(6)]
    frame = pd.DataFrame(rows)
    good = {
        "csv": frame.to_csv(index=False).encode(),
        "tsv": frame.to_csv(index=False, sep="\t").encode(),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "parquet": frame.to_parquet(),
    }[kind]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        answered(lambda: table.listing(str(path), DataOptions()))

    inputs: st.SearchStrategy[bytes] = spoiled(good)
    if kind == "jsonl":
        inputs |= changed(rows).map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
    if kind == "csv":
        cells = st.lists(
            st.sampled_from(ODD_TEXTS) | st.text(max_size=9) | st.integers().map(str), min_size=2, max_size=2
        )
        inputs |= st.lists(cells, max_size=5).map(
            lambda rows: pd.DataFrame(rows, columns=["path", "label"]).to_csv(index=False).encode("utf-8", "replace")
        )
    with faults("fuzz", f".{kind}", f"{count} files") as fault:
        check(good)
        search(check, inputs, count)
        fault.survived(ONE_ERROR)


IMAGES = {
    "PNG": {}, "JPEG": {}, "JPEG progressive": {"progressive": True}, "GIF": {}, "WEBP": {}, "BMP": {}, "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"}, "JPEG2000": {}, "PPM": {}, "TGA": {}, "AVIF": {},
}  # fmt: skip


@examples
@pytest.mark.parametrize("kind", IMAGES)
def test_images(faults: Try, kind: str, count: int) -> None:
    good = encoded(picture(3), kind.split()[0], **IMAGES[kind])

    def check(content: bytes) -> None:
        try:
            image = decode(content, lambda remark: None)
        except UnreadableImage as error:
            assert str(error)
        else:
            assert image.mode == "RGB" and max(image.size) <= 64 * min(image.size)

    with faults("fuzz", "images", f"{kind}, {count} files") as fault:
        assert decode(good).size == (20, 16)
        search(check, spoiled(good), count)
        fault.survived(ONE_ERROR)


@examples
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives(faults: Try, tmp_path: Path, kind: str, count: int) -> None:
    path = tmp_path / f"x.{kind}"
    names = ["a/1.png", "a/2.png", "b/3.png"]
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for number, name in enumerate(names):
                packed.writestr(name, encoded(picture(number)))
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for number, name in enumerate(names):
                data = encoded(picture(number))
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    good = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        listing = answered(lambda: archive.listing(str(path), DataOptions()))
        for item in [item for items in listing.splits.values() for item in items] if listing else ():
            assert ".." not in item.id.split("/")
            try:
                listing.reader.read(item.locator)
            except (OSError, ValueError):
                continue  # the scan names it

    with faults("fuzz", f".{kind}", f"{count} files") as fault:
        search(check, spoiled(good), count)
        fault.survived(ONE_ERROR)


@examples
def test_checkpoints(faults: Try, tmp_path: Path, count: int) -> None:
    """A state and what stands beside it, in a run folder from elsewhere: read, or passed over with a line."""
    import torch

    state = {"model": {"x": torch.ones(3)}, "step": 4, "name": "probe"}
    path = save_checkpoint(tmp_path, 4, state, needs={})
    good, beside = path.read_bytes(), path.with_suffix(".json")
    facts = json.loads(beside.read_text())

    def check(made: tuple[bytes, Any, bool]) -> None:
        content, told, is_right = made
        path.write_bytes(content)
        if is_right and isinstance(told, dict):  # whoever makes a file makes its hash
            told = {**told, "sha256": file_sha256(path)}
        beside.write_text(plain(told))
        found, passed = load_checkpoint(tmp_path)
        assert found is not None or len(passed) == 1
        needed_files(tmp_path)

    inputs = st.tuples(st.just(good) | spoiled(good), st.just(facts) | changed(facts), st.booleans())
    with faults("fuzz", "checkpoints", f"{count} files") as fault:
        search(check, inputs, count)
        fault.survived(ONE_ERROR)
