"""Dataset variants: who is trained, validated and tested on, and which clips training starts from."""

from otus.datasets.hard_negatives import Selections, read_selections
from otus.datasets.leakage import leakage_table, verdict
from otus.datasets.parts import parts_in_words
from otus.datasets.splits import make_splits
from otus.datasets.variant import Variant, make_variant

__all__ = [
    "Selections",
    "Variant",
    "leakage_table",
    "make_splits",
    "make_variant",
    "parts_in_words",
    "read_selections",
    "verdict",
]
