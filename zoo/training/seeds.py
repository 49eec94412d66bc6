"""Random seeds derived from names: no state to save, nothing that workers or a resume could shift."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for one purpose, from the run's seed and the purpose's names."""
    text = "\x1f".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_all(seed: int, *names: object) -> None:
    """Seed Python, NumPy and torch (all devices) for one purpose."""
    value = derive(seed, *names)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.manual_seed(value)
