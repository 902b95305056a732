"""What is written beside the clips of a dataset variant: lists, Raven tables, pictures, sounds, statistics, a page."""

from otus.clipfiles.stage import DatasetTables, describe_dataset

__all__ = ["DatasetTables", "describe_dataset"]
