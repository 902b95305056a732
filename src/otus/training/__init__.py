"""Training a network on labelled recordings: cuts, augmentation, the loop, validation by detection."""

from otus.training.material import TrainingTables
from otus.training.stage import train_fold

__all__ = ["TrainingTables", "train_fold"]
