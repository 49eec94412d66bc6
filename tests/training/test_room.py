"""What memory is left, by files as the system writes them."""

from __future__ import annotations

from pathlib import Path

from zoo.training.memory import available_memory

MIB = 2**20


def system(root: Path, available: int | None) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    line = "" if available is None else f"MemAvailable:   {available * 1024} kB\n"
    (root / "proc/meminfo").write_text(f"MemTotal:       99999999 kB\nMemFree:          100 kB\n{line}")


def group(folder: Path, limit: object, used: int, cache: int = 0, *, first: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache * MIB}\n")


def test_what_the_system_says(tmp_path: Path) -> None:
    system(tmp_path, 700)
    assert available_memory(tmp_path) == 700 * MIB


def test_a_container_may_have_less(tmp_path: Path) -> None:
    system(tmp_path, 700)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    group(tmp_path / "sys/fs/cgroup", 500 * MIB, 400, cache=50)  # file cache is given back when it is needed
    assert available_memory(tmp_path) == 150 * MIB


def test_the_tightest_group_around_counts(tmp_path: Path) -> None:
    system(tmp_path, 700)
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/elsewhere\n0::/jobs/mine\n")
    group(tmp_path / "sys/fs/cgroup/jobs/mine", "max", 100)
    group(tmp_path / "sys/fs/cgroup/jobs", 300 * MIB, 220)
    assert available_memory(tmp_path) == 80 * MIB


def test_groups_of_the_first_kind(tmp_path: Path) -> None:
    system(tmp_path, 700)
    (tmp_path / "proc/self/cgroup").write_text("9:cpu:/\n4:memory,hugetlb:/docker/0123\n")
    group(tmp_path / "sys/fs/cgroup/memory", 300 * MIB, 100, first=True)  # the host's path is not there
    assert available_memory(tmp_path) == 200 * MIB


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    system(tmp_path, None)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    group(tmp_path / "sys/fs/cgroup", 300 * MIB, 400)
    assert available_memory(tmp_path) == 0
