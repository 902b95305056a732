"""Dataset variants: who is trained, validated and tested on, and which clips training starts from."""

from otus.datasets.clips import make_clips
from otus.datasets.splits import make_splits

__all__ = ["make_clips", "make_splits"]
