"""Images from wherever they are to batches: sources, splits, the scan, the decoded store, transforms, loaders."""

from zoo.data.batches.loader import EvaluationLoader, TrainLoader, auto_workers, eval_batches, is_quick, train_loader
from zoo.data.batches.maker import Batch, Unlabelled
from zoo.data.batches.views import store_side
from zoo.data.dataset import Dataset, EvaluationSet
from zoo.data.join import asked_of, open_dataset
from zoo.data.loose_images import image_paths, open_images
from zoo.data.open import open_evaluation
from zoo.data.part import Part, class_weights
from zoo.data.types import BadImage, DataOptions, Sample

__all__ = [
    "BadImage",
    "Batch",
    "DataOptions",
    "Dataset",
    "EvaluationLoader",
    "EvaluationSet",
    "Part",
    "Sample",
    "TrainLoader",
    "Unlabelled",
    "asked_of",
    "auto_workers",
    "class_weights",
    "eval_batches",
    "image_paths",
    "is_quick",
    "open_dataset",
    "open_evaluation",
    "open_images",
    "store_side",
    "train_loader",
]
