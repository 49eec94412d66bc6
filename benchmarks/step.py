"""What a training step costs on the CPU, in other ways: layout, precision, optimizer, memory, products, compiling.

Each way runs in a process of its own on one thread, on made-up images, and counts processor time of the quickest step,
so that a busy machine moves it less than it would move a clock. Ways take turns, and the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

RULERS = "the usual"  # what the ratios are to


@dataclass(frozen=True)
class Way:
    """How the step is done."""

    channels_last: bool = True
    bf16: bool = False
    optimizer: str = "fused"  # "fused" | "foreach" | "loop"
    keep_memory: bool = True
    products: bool = True  # of matrices, where a kernel covers its input
    compile: bool = False


WAYS = {
    RULERS: Way(),
    "contiguous images": Way(channels_last=False),
    "bf16": Way(bf16=True),
    "optimizer foreach": Way(optimizer="foreach"),
    "optimizer loop": Way(optimizer="loop"),
    "freed memory given back": Way(keep_memory=False),
    "convolutions of the whole input": Way(products=False),
    "compiled": Way(compile=True),
    "bf16, compiled": Way(bf16=True, compile=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="resnet18", help="timm's name (default: resnet18)")
    parser.add_argument("--batch-size", type=int, default=16, help="images (default: 16)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--turns", type=int, default=3, help="processes of each way (default: 3)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="default: all")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    names = list(dict.fromkeys([RULERS, *arguments.ways]))
    work = {"arch": arguments.arch, "batch": arguments.batch_size, "size": arguments.image_size}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(arguments.turns):
        for name in names:
            words = [sys.executable, "-m", "benchmarks.step", json.dumps({**work, "way": asdict(WAYS[name])})]
            done = subprocess.run(words, check=True, capture_output=True, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
            taken[name].append(json.loads(done.stdout))
            sys.stderr.write(f"turn {turn + 1} of {arguments.turns}: {name}\n")
    best = {name: min(each["step"] for each in found) for name, found in taken.items()}
    return {
        **work,
        "milliseconds_per_image": {name: round(1000 * value / arguments.batch_size, 2) for name, value in best.items()},
        "ratio": {name: round(value / best[RULERS], 3) for name, value in best.items()},
        "first_step_seconds": {name: round(min(each["first"] for each in found), 1) for name, found in taken.items()},
    }


def _one(arch: str, batch: int, size: int, way: Way) -> dict[str, float]:
    """Processor seconds of the quickest step, and seconds of the first one, in this process."""
    import time

    import timm
    import torch

    from zoo.training.memory import keep_freed_memory
    from zoo.training.products import use_products

    if way.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=10).train()
    if way.products:
        use_products(model)
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    images = torch.randn(batch, 3, size, size).to(memory_format=layout)
    labels = torch.randint(10, (batch,))
    kind: dict[str, Any] = {
        "fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False},
    }[way.optimizer]  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, **kind)
    network = torch.compile(model, dynamic=False) if way.compile else model
    seconds, started = [], time.perf_counter()
    first = 0.0
    for _ in range(6):
        before = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=way.bf16):
            logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.process_time() - before)
        first = first or time.perf_counter() - started
    return {"step": min(seconds[1:]), "first": first}


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(_one(told["arch"], told["batch"], told["size"], Way(**told["way"]))))
