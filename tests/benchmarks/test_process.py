from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks import process
from benchmarks.stopwatch import Stopwatch

HOLD = "import time; held = bytearray(80_000_000); print('ready', flush=True); time.sleep(60)"


def test_what_is_off_the_clock_does_not_count(monkeypatch):
    times = iter([100.0, 103.0, 110.0, 112.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    watch = Stopwatch(90.0)
    assert watch.now() == 10
    with watch.paused():  # 103 to 110
        pass
    watch.point(0.5, best=True)
    assert watch.points == [{"seconds": 15.0, "accuracy": 0.5, "best": True}]
    assert watch.off == 7


def test_the_parts_of_a_process_add_up_to_the_whole():
    said = {"marks": {"training": 4.0, "trained": 9.0}, "off_the_clock": 2.0}
    seconds = process._seconds(said, 13.5)
    assert seconds == {"whole": 11.5, "setup": 4.0, "training": 5.0, "rest": 2.5, "off_the_clock": 2.0}


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells")
def test_memory_is_that_of_the_process_and_its_children():
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    children: list[psutil.Process] = []
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        peak = process.Peak()
        root = psutil.Process(running.pid)
        peak.look(root)
        assert 80 < peak.anonymous < 200
        assert peak.anonymous < peak.memory < 300
        children = root.children()
    finally:
        for child in children:
            child.kill()
        running.wait()
    before = (peak.memory, peak.anonymous)
    peak.look_at_all(root)  # it is gone: no error, and the peak stays
    assert (peak.memory, peak.anonymous) == before


def test_looking_at_all_processes_takes_a_small_share_of_the_time(monkeypatch):
    looks = []
    monkeypatch.setattr(process.Peak, "look_at_all", lambda *_: looks.append(time.sleep(0.01)))
    peak, this = process.Peak(), psutil.Process()
    for _ in range(3):
        peak.look(this)
    assert len(looks) == 1
    assert peak.memory > 10  # of the process itself, each time
    assert peak.due - time.monotonic() + 1 >= 0.01 / process.SHARE


def test_a_side_that_fails_stops_the_measurement(tmp_path):
    with pytest.raises(SystemExit, match="there_is_none failed with exit code 1"):
        process.fresh("there_is_none", {}, tmp_path)
