from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Outcome
from zoo.base import cache
from zoo.training.frozen_cache.feature_file import CachedFeatures, Layout, write_cached

Zoo = Callable[..., Outcome]
VALUES = torch.arange(40.0).reshape(10, 4)


def kept(name: str = "a", view: str = "training images") -> tuple[Path, CachedFeatures]:
    path = cache.features_folder() / f"{name}{cache.ACTIVATIONS}"
    about = {"backbone": "kit/net", "entry": "fc", "dataset": "photos", "view": view}
    found = write_cached([(range(10), VALUES)], path, 10, Layout.of(VALUES), in_memory=False, limit=10**9, others=(),
                 about=about, note=pytest.fail)  # fmt: skip
    return path, found


def test_an_empty_cache_is_said(zoo_: Zoo) -> None:
    assert zoo_("cache", "list").out.startswith("nothing in ")
    assert zoo_("cache", "list", "--json").json == [] == zoo_("cache", "clear", "--json").json
    assert zoo_("cache", "clear").out == "removed nothing\n"


def test_what_is_kept_is_listed_last_used_first(zoo_: Zoo) -> None:
    old, _ = kept("old")
    os.utime(old, (time.time() - 7200,) * 2)
    new, _ = kept("new", "validation images")
    lines = zoo_("cache", "list").out.splitlines()
    assert lines[0].split() == ["kind", "size", "used", "what", "for"]
    assert lines[1].startswith("activations") and lines[1].endswith("kit/net before fc on photos, validation images, 4")
    assert "2 h 00 min ago" in lines[2] and lines[2].endswith("training images, 4")
    records = zoo_("cache", "list", "--json").json
    assert [record["path"] for record in records] == [str(new), str(old)]
    assert records[0].keys() == {"kind", "path", "bytes", "age", "about"}
    assert records[1]["bytes"] == old.stat().st_size and 7190 < records[1]["age"] < 7300


def test_a_damaged_file_is_listed_as_such(zoo_: Zoo) -> None:
    path, _ = kept()
    path.write_bytes(path.read_bytes()[:60])
    (record,) = zoo_("cache", "list", "--json").json
    assert record["about"] == "damaged"


def test_clearing_spares_what_is_in_use_or_young_or_being_written(zoo_: Zoo) -> None:
    path, found = kept()
    writing = path.with_name(f".{path.name}.1.tmp")
    writing.write_bytes(b"half")
    assert zoo_("cache", "clear", "--older-than", "30m", "--json").json == [] and path.exists()
    os.utime(path, (time.time() - 3600,) * 2)
    (record,) = zoo_("cache", "clear", "--older-than", "30m", "--json").json
    assert record["path"] == str(path) and not path.exists()
    assert torch.equal(found.layout.unpack(found.rows.copy()), VALUES), "who has it open still reads it"
    path, _ = kept()
    assert zoo_("cache", "clear").out.splitlines()[-1].startswith("removed ")
    assert not path.exists() and writing.exists()


def test_a_time_that_is_none_is_wrong_usage(zoo_: Zoo) -> None:
    done = zoo_("cache", "clear", "--older-than", "soon")
    assert done.code == 2 and "--older-than takes a time such as 30m, 12h or 7d, not 'soon'" in done.err
