"""The embedded demo corpus: made-up field recordings with Raven tables, for trying everything without data.

`background` and `voices` synthesise sounds, `sites` says what each place sounds like, `scene` mixes one
recording, `selection_tables` writes what a person would have saved, and `corpus` lays out the folder.
"""

from otus.demo.corpus import make_demo_corpus

__all__ = ["make_demo_corpus"]
