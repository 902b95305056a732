"""Annotation formats of song and speech research, read by the package crowsetta, which is imported when needed."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from otus.annotations.rows import AnnotationFile, ExtentOf, unusable
from otus.annotations.text import excerpt, first_line
from otus.config import AnnotationSource
from otus.errors import MissingPartError

_HEAD_CHARACTERS = 400


class _Segment(NamedTuple):
    """One labelled interval as crowsetta gives it; times in seconds or, if `in_samples`, samples of the recording."""

    recording: str
    onset: float
    offset: float
    label: str
    in_samples: bool = False


def sniff_sequences(text: str) -> str | None:
    """Return birdsong-recognition-dataset or textgrid if `text` begins like one, or None."""
    head = text[:_HEAD_CHARACTERS].lstrip("\ufeff")
    if head[:1] == "<" and "<Sequences" in head:
        return "birdsong-recognition-dataset"
    return "textgrid" if "ooTextFile" in first_line(head) and "TextGrid" in head else None


def read_sequences(path: Path, format_: str, source: AnnotationSource, extent_of: ExtentOf) -> AnnotationFile:
    """Return the intervals in the file at `path`, which is in the crowsetta format `format_`.

    Sample positions are divided by the sample rate of the recording; a row whose recording is not there is unplaced.
    Rows are numbered as they come, in tables with a header from 2. A file that crowsetta refuses is a problem.
    Raises MissingPartError if crowsetta is not installed.
    """
    if importlib.util.find_spec("crowsetta") is None:
        raise MissingPartError(
            f"corpus.annotations: the format {format_} is read by the package crowsetta, which is not installed; "
            "install it with: pip install 'crowsetta>=5.1'."
        )
    first, read = _READERS[format_]
    try:
        segments = list(read(path))
    except Exception as error:  # crowsetta and what it calls raise whatever they like on a file that they do not expect
        reason = f"cannot be read as {format_} ({_said(error, path)})"
        return unusable(reason, "correct the file, or `format` in its annotation source")
    result = AnnotationFile(format_, n_rows=len(segments))
    for row, (recording, onset, offset, label, in_samples) in enumerate(segments, start=first):
        samples_per_s = 1.0
        if in_samples:
            extent = extent_of(recording or None)
            if extent is None:
                result.unplaced.append((recording or None, row))
                continue
            samples_per_s = extent.sample_rate
        times = (repr(float(onset) / samples_per_s), repr(float(offset) / samples_per_s))
        result.add(row, times, label.strip() or source.label or "", recording=recording)
    return result


def _said(error: Exception, path: Path) -> str:
    """What crowsetta says about a file, where it is about the file and not about what its own code stumbled over."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    words = first_line(str(error).replace(str(path), path.name)).partition(", not type")[0].rstrip(".: ")
    if number := re.fullmatch(r"(?:invalid literal|could not convert) .*'(.*)'", words):
        return f"'{number[1]}' is no number"
    is_plain = " " in words and not re.search(r"NoneType|<class|object has no|\(\)", words)
    return excerpt(words, 200) if is_plain else "it is not laid out as this format is"


def _koumura(path: Path) -> Iterator[_Segment]:
    """Notes of Annotation.xml. Only crowsetta's parser is used: its conversion to seconds wants every wav on disk."""
    from crowsetta.formats.seq import BirdsongRec

    for sequence in BirdsongRec.from_file(path, concat_seqs_into_songs=False).sequences:
        for note in sequence.syls:
            onset = sequence.position + note.position
            yield _Segment(sequence.wav_file, onset, onset + note.length, note.label, in_samples=True)


def _generic(path: Path) -> Iterator[_Segment]:
    from crowsetta.formats.seq import GenericSeq

    for annotation in GenericSeq.from_file(path).annots:
        named = str(annotation.notated_path)
        for segment in annotation.seq.segments:
            if segment.onset_s is None:
                yield _Segment(named, segment.onset_sample, segment.offset_sample, segment.label, in_samples=True)
            else:
                yield _Segment(named, segment.onset_s, segment.offset_s, segment.label)


def _notmat(path: Path) -> Iterator[_Segment]:
    from crowsetta.formats.seq import NotMat

    content = NotMat.from_file(path)
    yield from _zipped(content.onsets, content.offsets, content.labels)


def _simple(path: Path) -> Iterator[_Segment]:
    from crowsetta.formats.seq import SimpleSeq

    content = SimpleSeq.from_file(path, default_label="")
    yield from _zipped(content.onsets_s, content.offsets_s, content.labels)


def _textgrid(path: Path) -> Iterator[_Segment]:
    """The intervals with text in all tiers; points have no length."""
    from crowsetta.formats.seq import TextGrid

    for tier in TextGrid.from_file(path).tiers:
        for item in tier:
            if hasattr(item, "xmin"):
                yield _Segment("", item.xmin, item.xmax, item.text)
            else:
                yield _Segment("", item.number, item.number, item.mark)


def _timit(path: Path) -> Iterator[_Segment]:
    from crowsetta.formats.seq import Timit

    content = Timit.from_file(path)
    yield from _zipped(content.begin_samples, content.end_samples, content.text, in_samples=True)


def _yarden(path: Path) -> Iterator[_Segment]:
    from crowsetta.formats.seq import SongAnnotationGUI

    content = SongAnnotationGUI.from_file(path)
    for recording, sequence in zip(content.audio_paths, content.to_seq(round_times=False), strict=True):
        for segment in sequence.segments:
            yield _Segment(str(recording), segment.onset_s, segment.offset_s, segment.label)


def _zipped(onsets: Any, offsets: Any, labels: Any, *, in_samples: bool = False) -> Iterator[_Segment]:
    """Segments of the recording that the file belongs to by its own name."""
    for onset, offset, label in zip(onsets, offsets, labels, strict=True):
        yield _Segment("", onset, offset, str(label), in_samples)


#: Format -> number of the first row of data, and its reader.
_READERS: dict[str, tuple[int, Callable[[Path], Iterator[_Segment]]]] = {
    "birdsong-recognition-dataset": (1, _koumura),
    "generic-seq": (2, _generic),
    "notmat": (1, _notmat),
    "simple-seq": (2, _simple),
    "textgrid": (1, _textgrid),
    "timit": (1, _timit),
    "yarden": (1, _yarden),
}
