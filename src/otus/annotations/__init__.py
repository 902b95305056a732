"""Annotation files: one reader per format, and which file belongs to which recording."""

from otus.annotations.detect import detect_format, read_annotations
from otus.annotations.pairing import Pairing, RecordingIndex, index_recordings, recording_named, recording_of_file
from otus.annotations.rows import AnnotationFile, AnnotationRow, Problem

__all__ = [
    "AnnotationFile",
    "AnnotationRow",
    "Pairing",
    "Problem",
    "RecordingIndex",
    "detect_format",
    "index_recordings",
    "read_annotations",
    "recording_named",
    "recording_of_file",
]
