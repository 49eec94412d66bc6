"""The Hugging Face Hub: what it sees of a run, publishing one, and models that are there."""

from __future__ import annotations

from zoo.runs.publish.card import model_card
from zoo.runs.publish.download import NoModel, fetch, fetch_run, fetch_stack

__all__ = ["NoModel", "fetch", "fetch_run", "fetch_stack", "model_card"]
