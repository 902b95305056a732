"""What jobs tell about themselves while they run, and what is made of it afterwards.

A library module that only writes events imports from `otus.telemetry.events`: its code digest then does not change,
and nothing is computed anew, when the sampler or the summary does.
"""

from otus.telemetry.events import NO_JOURNAL, Recorder
from otus.telemetry.journal import Journal, open_journal
from otus.telemetry.sampler import sampling

__all__ = ["NO_JOURNAL", "Journal", "Recorder", "open_journal", "sampling"]
