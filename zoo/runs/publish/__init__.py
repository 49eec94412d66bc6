"""Publish runs on the Hugging Face Hub, and fetch models from it."""

from __future__ import annotations

from zoo.runs.publish.card import model_card
from zoo.runs.publish.download import NoModel, fetch, fetch_run, fetch_stack

__all__ = ["NoModel", "fetch", "fetch_run", "fetch_stack", "model_card"]
