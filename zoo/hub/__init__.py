"""The Hugging Face Hub: what it sees of a run, publishing one, and models that are there."""

from __future__ import annotations

from zoo.hub.card import model_card
from zoo.hub.download import PREFIX, fetch, fetch_run, looks_like_repo

__all__ = ["PREFIX", "fetch", "fetch_run", "looks_like_repo", "model_card"]
