"""Child processes: what they find, and what their end is called."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from zoo import version
from zoo.base import processes


def test_a_child_finds_the_same_zoo(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, "-P", "-c", "import os, zoo.version as v; print(v.__file__, os.environ['PYTHONPATH'])"]
    done = subprocess.run(command, cwd=tmp_path, env=processes.environment(), capture_output=True, text=True)
    home = Path(version.__file__).parents[1]
    assert done.stdout.split() == [str(home / "zoo" / "version.py"), f"{tmp_path}:{home}"]


def test_no_child_outlives_the_block() -> None:
    with processes.supervising() as children:
        member = children.start([sys.executable, "-c", "import time; time.sleep(3600)"], processes.environment())
    assert children.killed == [member] and processes.killer(member.returncode) == "SIGKILL"


def test_a_signal_without_a_name_has_its_number() -> None:
    unnamed = next(number for number in range(1, 200) if number not in set(signal.Signals))
    assert processes.killer(-unnamed) == f"signal {unnamed}"
    assert processes.killer(1) == processes.killer(0) == ""
