"""`python -m tests.hub.data_faults ROOT`: fetch a data set over and over, one request struck each time.

In one process of its own, which `datasets` has to be told about the Hub's address before. Prints a JSON line for each
fault: what it was, how the fetch ended, what would have been waited.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.hub.server import Server

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "429": {"status": 429, "retry_after": 7},
    "drop": {"drop": True},
    "cut": {"cut": True},
}


def main(root: Path) -> None:
    with Server(root) as server:
        os.environ |= server.environment()
        import datasets
        from huggingface_hub import HfFileSystem, constants, file_download
        from huggingface_hub.utils import _http

        from tests.hub import contents
        from zoo.data import DataOptions, open_dataset
        from zoo.errors import ZooError
        from zoo.models import hub_client

        contents.put_dataset(root, "somebody/eyes", ["left", "right"], {"train": 12, "test": 4})
        waits: list[float] = []
        hub_client.sleep = waits.append
        _http.time = file_download.time = SimpleNamespace(sleep=waits.append, time=lambda: 0.0)  # type: ignore[attr-defined]

        def fetch(cache: Path) -> dict[str, Any]:
            constants.HF_HUB_CACHE = str(cache / "hub")
            datasets.config.HF_DATASETS_CACHE = cache / "datasets"
            told: list[str] = []
            waits.clear()
            HfFileSystem.clear_instance_cache()  # it remembers what folders hold
            try:
                opened = open_dataset("hf:somebody/eyes", DataOptions(), lambda stage, *_: told.append(stage))
                found: dict[str, Any] = {"fingerprint": opened.fingerprint}
            except ZooError as error:
                found = {"error": error.record()}
            return {**found, "waits": list(waits), "told": [stage for stage in told if "trying again" in stage]}

        clean = fetch(root / "cache")
        lines: list[tuple[str, int]] = []
        for request in server.requests:
            line = re.sub(r"[0-9a-f]{40}", "SHA", request)
            lines.append((line, sum(line == other for other, _ in lines)))
        for place, (line, number) in enumerate(lines):
            for kind, how in FAULTS.items():
                if kind == "cut" and line.startswith("HEAD"):  # it has no body
                    continue
                for times in (1, None):
                    cache = root / f"cache-{place}-{kind}-{times}"
                    pattern = re.escape(line).replace("SHA", "[0-9a-f]{40}")
                    order = server.fail(pattern, **how, times=times, after=number)
                    row = fetch(cache)
                    server.faults.clear()
                    again = fetch(cache) if "error" in row else row
                    print(json.dumps({"line": line, "kind": kind, "times": times, "hits": order.hits, "clean": clean,
                                      **row, "again": again}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
