"""Names of the methods for unlabelled images, from their files; none is imported."""

from __future__ import annotations

from pathlib import Path

SOURCE_ONLY = ("none", "adabn")  # train on labelled images alone; adabn then takes the target's norm statistics
AUTO = "auto"  # tries the methods below
# Not MCC: it optimises for confident, diverse predictions, by which methods are then compared. Not all of the others:
# each is another training.
TRIED = ("none", "adabn", "dann", "cdan")
VALIDATORS = ("entropy", "information", "density")  # scores of target images without labels


def _files(folder: str) -> tuple[str, ...]:
    place = Path(__file__).parents[1] / "training" / "losses" / folder
    return tuple(sorted(path.stem for path in place.glob("*.py") if path.stem != "__init__"))


def asked(align: str) -> tuple[str, ...]:
    """The methods that a recipe's `align` names: one to adapt by, or several to try."""
    return TRIED if align == AUTO else tuple(align.split(","))


ALIGNMENT = _files("alignment")  # align the features of two domains
SEMI = _files("semi")  # learn from pseudo-labels
