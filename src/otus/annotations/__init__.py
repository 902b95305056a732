"""Annotation files: one reader per format, writers, the label map, and which file belongs to which recording."""

from otus.annotations.detect import detect_format, read_annotations
from otus.annotations.label_map import LabelMap, idle_entries, mapped_label
from otus.annotations.pairing import Pairing, RecordingIndex, index_recordings, recording_named, recording_of_file
from otus.annotations.rows import AnnotationFile, AnnotationRow, Extent, ExtentOf, Problem
from otus.annotations.writing import TableRow, audacity_labels, raven_table

__all__ = [
    "AnnotationFile",
    "AnnotationRow",
    "Extent",
    "ExtentOf",
    "LabelMap",
    "Pairing",
    "Problem",
    "RecordingIndex",
    "TableRow",
    "audacity_labels",
    "detect_format",
    "idle_entries",
    "index_recordings",
    "mapped_label",
    "raven_table",
    "read_annotations",
    "recording_named",
    "recording_of_file",
]
