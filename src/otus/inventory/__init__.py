"""The first stage: recordings, annotations, and a quarantine row for everything that cannot be used."""

from otus.fingerprint import corpus_fingerprint
from otus.inventory.stage import Inventory, take_inventory
from otus.inventory.summary import summary_lines

__all__ = ["Inventory", "corpus_fingerprint", "summary_lines", "take_inventory"]
