"""What the Hugging Face Hub sees of a run."""

from __future__ import annotations

from zoo.hub.card import model_card

__all__ = ["model_card"]
