"""Soundscapes by construction: long recordings put together from labelled clips, with exact annotations."""

from otus.soundscapes.corpus import build_soundscapes

__all__ = ["build_soundscapes"]
