"""Otus: from hand-labelled field recordings to a benchmarked detector of animal calls."""

__version__ = "0.1.0"
