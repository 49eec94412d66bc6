from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from zoo.base import cache
from zoo.training.frozen_cache import feature_file
from zoo.training.frozen_cache.feature_file import CachedFeatures, Layout, NoSpace, open_cached, write_cached

VALUES = torch.randn(10, 4, 3, 2).to(memory_format=torch.channels_last)
LAYOUT = Layout.of(VALUES)


def chunks() -> Iterator[tuple[list[int], torch.Tensor]]:
    for start in range(0, 10, 3):
        there = [place for place in range(start, min(start + 3, 10)) if place != 4]  # 4 could not be read
        yield there, VALUES[there]


def kept(path: Path, *, in_memory: bool = False, limit: int = 10**9, notes: list[str] | None = None) -> CachedFeatures:
    about = {"backbone": "kit/net", "entry": "fc", "dataset": "photos", "view": "training images"}
    said = [] if notes is None else notes
    return write_cached(
        chunks(), path, 10, LAYOUT, in_memory=in_memory, limit=limit, others=(), about=about, note=said.append
    )


def right(found: CachedFeatures | None) -> bool:
    if found is None:
        return False
    there = [place for place in range(10) if place != 4]
    batch = found.layout.unpack(found.rows[there].copy())
    return torch.equal(batch, VALUES[there]) and batch.stride() == VALUES[there].stride() and not found.present[4]


@pytest.fixture
def path() -> Path:
    return cache.features_folder() / f"a{cache.ACTIVATIONS}"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_comes_back_as_it_was(path: Path, in_memory: bool, dtype: torch.dtype) -> None:
    assert right(kept(path, in_memory=in_memory)) and right(open_cached(path, 10, LAYOUT, in_memory=in_memory))
    plain = torch.randn(3, 5).to(dtype)
    assert torch.equal(Layout.of(plain).unpack(Layout.of(plain).pack(plain)), plain)
    (entry,) = cache.stored()
    assert entry.kind == "activations" and entry.about == "kit/net before fc on photos, training images, 4 x 3 x 2"


@pytest.mark.parametrize("place", [0, 9, 60, 300, 700, -3])
def test_damage_is_noticed_and_the_file_removed(path: Path, place: int) -> None:
    kept(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert open_cached(path, 10, LAYOUT, in_memory=False) is None and not path.exists()


@pytest.mark.parametrize("length", [0, 10, 200, 1000])
def test_a_file_cut_short_is_not_taken_for_whole(path: Path, length: int) -> None:
    kept(path)
    os.truncate(path, length)
    assert open_cached(path, 10, LAYOUT, in_memory=True) is None


def test_another_layout_or_count_is_another_thing(path: Path) -> None:
    kept(path)
    assert open_cached(path, 11, LAYOUT, in_memory=True) is None


def test_a_full_disk_leaves_what_fits_in_memory_and_refuses_the_rest(path: Path) -> None:
    notes: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        assert right(kept(path, in_memory=True, notes=notes))
        with pytest.raises(NoSpace, match="File too large"):
            kept(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert notes == ["features are cached in memory only: File too large"]
    assert not list(path.parent.iterdir()), "nothing half-written stays"


def test_the_limit_removes_what_was_used_longest_ago(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(path)
    os.utime(path, (1, 1))
    kept(path.with_name(f"b{cache.ACTIVATIONS}"), limit=path.stat().st_size + 100)
    assert not path.exists()
    with pytest.raises(NoSpace, match="more than --cache-gb allows"):
        kept(path, limit=100)
    monkeypatch.setattr(feature_file, "RESERVE", 1 << 60)
    with pytest.raises(NoSpace, match="the disk is nearly full"):
        kept(path)


def test_killed_while_it_is_written_leaves_nothing_that_looks_whole(path: Path) -> None:
    code = (
        "import sys, time; from tests.training.frozen_cache import test_feature_file as t; from pathlib import Path\n"
        "def slow():\n"
        "    for number, item in enumerate(t.real()):\n"
        "        yield item\n"
        "        if number == 2: print('written', flush=True); time.sleep(60)\n"
        "t.real, t.chunks = t.chunks, slow\n"
        f"t.kept(Path({str(path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists() and open_cached(path, 10, LAYOUT, in_memory=False) is None
    (left,) = cache.stored()
    assert left.kind == "unfinished" and cache.clear() == []
    os.utime(left.path, (time.time() - 7200,) * 2)
    assert [entry.path for entry in cache.clear()] == [left.path] and cache.stored() == []
    assert right(kept(path))


def test_one_that_is_removed_while_mapped_stays_readable(path: Path) -> None:
    found = kept(path)
    cache.clear()
    assert right(found) and not path.exists()
