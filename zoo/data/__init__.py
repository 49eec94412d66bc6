"""Data sets: from files, archives, tables or the Hub to batches."""

from zoo.data.batches.loader import EvaluationLoader, TrainLoader, auto_workers, eval_batches, is_quick, train_loader
from zoo.data.batches.maker import Batch, Unlabelled
from zoo.data.batches.views import store_side
from zoo.data.dataset import Dataset
from zoo.data.join import evaluation_options
from zoo.data.loose_images import open_images
from zoo.data.open import open_dataset, open_evaluation
from zoo.data.part import Part, class_weights
from zoo.data.types import BadImage, DataOptions

__all__ = [
    "BadImage",
    "Batch",
    "DataOptions",
    "Dataset",
    "EvaluationLoader",
    "Part",
    "TrainLoader",
    "Unlabelled",
    "auto_workers",
    "class_weights",
    "eval_batches",
    "evaluation_options",
    "is_quick",
    "open_dataset",
    "open_evaluation",
    "open_images",
    "store_side",
    "train_loader",
]
