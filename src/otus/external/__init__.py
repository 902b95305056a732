"""Detectors of others: run on sound files of the chunks, each in its own environment, and what they find."""
