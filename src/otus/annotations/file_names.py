"""Labels in the names of audio files: a pattern of your own, ANIMAL-SPOT clips, cut-outs of the alpaca pipeline."""

import re

from otus.annotations.alpaca_index import HUM
from otus.annotations.rows import AnnotationFile, Extent, ExtentOf, unusable
from otus.config import AnnotationSource

_NOISE = "noise"

#: CLASSNAME-LABELINFO_ID_YEAR_TAPENAME_STARTMS_ENDMS: six parts, and no other underscore.
_ANIMAL_SPOT = re.compile(r"(?P<label>[^_-]+)-(?P<info>[^_]*)_[^_]*_\d+_[^_]*_\d+_\d+\.[^.]+")
_QUALITY = re.compile(r"(?<![A-Za-z])[Qq](\d+)")

_CUT = r"(?P<recording>.+?\.wav)_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)"
#: `tape.wav_110_125.wav_450.65_451.04Q3.wav`, and how it was written before: `clip.wav_12.5_13.1_hw_q2 faint.wav`.
_HUMS = (
    re.compile(rf"{_CUT}Q(?P<quality>\d)\.wav", re.IGNORECASE),
    re.compile(rf"{_CUT}_hw?_q(?P<quality>\d)(?:[ _(].*)?\.wav", re.IGNORECASE),
)


def read_name(path: str, source: AnnotationSource, extent_of: ExtentOf) -> AnnotationFile:
    """Return the one annotation that the name of the audio file at `path` (posix, below the root) is.

    Formats names, animal_spot and alpaca_hums. The interval is the whole of this file, unless the name gives times
    in seconds, which may belong to another recording. A name that does not fit is a problem without a row, which
    stands for one row; ANIMAL-SPOT noise is a file without annotations.
    """
    if source.format == "alpaca_hums":
        return _hum(path, source)
    if source.format == "animal_spot":
        return _animal_spot(path, extent_of)
    match = re.search(source.pattern or "", path)
    if match is None:
        remedy = "rename the file, or correct `pattern` in its annotation source"
        return _misfit("names", "does not fit `pattern`", remedy)
    named = {meaning: text for meaning, text in match.groupdict().items() if text is not None}
    label, quality = named.get("label", "").strip() or source.label or "", named.get("quality", "")
    result = AnnotationFile("names", n_rows=1)
    recording = named.get("recording") or _own(path)
    if "start" in named or "end" in named:
        times = (named.get("start", ""), named.get("end", ""))
        result.add(1, times, label, quality=quality, recording=recording)
    else:
        _add_whole(result, recording, label, quality, extent_of)
    return result


def cut_from(path: str, source: AnnotationSource) -> str | None:
    """Return the recording that the name of the audio file at `path` names, read as `source` says.

    None if it names none: then the annotation is of the file itself, or the name does not fit.
    """
    if source.format == "alpaca_hums":
        hum = _hum_match(path)
        return hum["recording"] if hum else None
    if source.format == "names" and (match := re.search(source.pattern or "", path)):
        return match.groupdict().get("recording") or None
    return None


def _hum_match(path: str) -> re.Match[str] | None:
    return next(filter(None, (pattern.fullmatch(_own(path)) for pattern in _HUMS)), None)


def _hum(path: str, source: AnnotationSource) -> AnnotationFile:
    match = _hum_match(path)
    if match is None:
        example = "is not that of a hum, such as tape.wav_110_125.wav_450.65_451.04Q3.wav"
        return _misfit("alpaca_hums", example, "rename the file, or leave it out of the glob")
    result = AnnotationFile("alpaca_hums", n_rows=1)
    result.add(
        1,
        (match["start"], match["end"]),
        source.label or HUM,
        quality=match["quality"],
        recording=match["recording"],
    )
    return result


def _animal_spot(path: str, extent_of: ExtentOf) -> AnnotationFile:
    match = _ANIMAL_SPOT.fullmatch(_own(path))
    if match is None:
        template = "CLASSNAME-LABELINFO_ID_YEAR_TAPENAME_STARTMS_ENDMS"
        return _misfit("animal_spot", f"is not made like {template}", "rename the file, or leave it out of the glob")
    if match["label"].lower() == _NOISE:
        return AnnotationFile("animal_spot")
    result = AnnotationFile("animal_spot", n_rows=1)
    quality = _QUALITY.search(match["info"])
    _add_whole(result, _own(path), match["label"], quality[1] if quality else "", extent_of)
    return result


def _add_whole(result: AnnotationFile, recording: str, label: str, quality: str, extent_of: ExtentOf) -> None:
    """Add the whole of `recording` as one row; a recording that is not there has no length."""
    extent: Extent | None = extent_of(recording)
    if extent is None:
        result.unplaced.append((recording, 1))
    else:
        result.add(1, ("0", repr(extent.duration_s)), label, quality=quality, recording=recording)


def _own(path: str) -> str:
    """The file's own name, under which `otus.annotations.recording_named` finds it in its own folder first."""
    return path.rpartition("/")[2]


def _misfit(format_: str, what: str, remedy: str) -> AnnotationFile:
    return unusable(f"its name {what}", remedy, format_, n_rows=1)
