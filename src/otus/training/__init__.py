"""Training a network on labelled recordings: cuts, augmentation, the loop, validation by detection."""

from otus.training.stage import TrainingTables, train_fold

__all__ = ["TrainingTables", "train_fold"]
