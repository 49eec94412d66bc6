"""Which methods there are to learn from images without labels: the files that hold them, by name; none is imported."""

from __future__ import annotations

from pathlib import Path

SOURCE_ONLY = ("none", "adabn")  # train on the labelled images alone; adabn then takes the target's norm statistics
AUTO = "auto"  # tries some
# Not MCC: it makes guesses sure and spread over the classes, which is what they would then be chosen by. Not all of the
# others: each is one more training.
TRIED = ("none", "adabn", "dann", "cdan")
VALIDATORS = ("entropy", "information", "density")  # what target images say without labels


def _files(folder: str) -> tuple[str, ...]:
    place = Path(__file__).parents[1] / "training" / "losses" / folder
    return tuple(sorted(path.stem for path in place.glob("*.py") if path.stem != "__init__"))


def asked(align: str) -> tuple[str, ...]:
    """The methods that a recipe's `align` names: one to adapt by, or several to be tried."""
    return TRIED if align == AUTO else tuple(align.split(","))


ALIGNMENT = _files("alignment")  # makes features of two domains alike
SEMI = _files("semi")  # learns from guesses
