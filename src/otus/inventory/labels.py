"""The annotation files of a corpus, attached to its recordings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from otus.annotations import (
    AnnotationFile,
    AnnotationRow,
    Pairing,
    RecordingIndex,
    read_annotations,
    recording_named,
    recording_of_file,
)
from otus.config import AnnotationSource
from otus.fingerprint import FoundFile
from otus.inventory.recordings import Quarantined

#: A row may end this much after its recording (s): annotation programs round, and cut audio loses a frame.
_OVERHANG_S = 0.1
#: Two rows of one label whose times differ by no more than this (s) are one annotation.
_SAME_S = 0.001


@dataclass(frozen=True, slots=True)
class AttachedRow:
    """An annotation row with the path of its recording and of the file that it comes from."""

    recording: str
    source_file: str
    row: AnnotationRow


@dataclass
class Labels:
    """The annotations of a corpus, and which recordings have a usable table or only an unusable one."""

    rows: list[AttachedRow] = field(default_factory=list)
    labelled: set[str] = field(default_factory=set)
    unusable: set[str] = field(default_factory=set)
    quarantine: list[Quarantined] = field(default_factory=list)


def attach_labels(
    root: Path,
    sources: Iterable[tuple[AnnotationSource, Sequence[FoundFile]]],
    index: RecordingIndex,
    durations_s: Mapping[str, float | None],
    progress: Callable[[str], None],
) -> Labels:
    """Return the annotations in all files of `sources`, each with its recording.

    `durations_s` gives the length of every kept recording, None if it cannot be read. A row that lies outside its
    recording, and a file or row without a recording, goes to quarantine. A recording counts as labelled if one of
    its tables is empty or has a usable row: what cannot be used does not prove that there is no call.
    """
    labels = Labels()
    for source, files in sources:
        for number, file in enumerate(files, start=1):
            content = read_annotations(root / file.path, source, file.path)
            _attach(labels, file.path, content, index, durations_s)
            if number % 5000 == 0:
                progress(f"read {number} of {len(files)} annotation files of '{source.files}'")
    labels.unusable -= labels.labelled
    labels.rows, merged = _merge_identical(labels.rows)
    labels.quarantine += merged
    return labels


def _attach(
    labels: Labels,
    file: str,
    content: AnnotationFile,
    index: RecordingIndex,
    durations_s: Mapping[str, float | None],
) -> None:
    """Add the content of one file to `labels`."""
    pairings: dict[str | None, Pairing] = {}

    def pair(reference: str | None) -> Pairing:
        if reference not in pairings:
            named = reference is not None
            pairings[reference] = (
                recording_named(index, reference or "", file) if named else recording_of_file(index, file)
            )
        return pairings[reference]

    usable: set[str] = set()
    lost: set[str | None] = set()
    homeless: dict[str | None, list[int]] = {}
    for row in content.rows:
        recording = pair(row.recording).recording
        duration_s = durations_s[recording] if recording is not None else None
        if recording is None or duration_s is None:
            homeless.setdefault(row.recording, []).append(row.source_row)
            continue
        fitted = _fit(row, duration_s)
        if isinstance(fitted, str):
            remedy = "correct the times, or check that the table belongs to this recording"
            labels.quarantine.append(Quarantined("row", file, row.source_row, fitted, remedy))
            lost.add(recording)
        else:
            labels.rows.append(AttachedRow(recording, file, fitted))
            usable.add(recording)
    for problem in content.problems:
        kind = "table" if problem.row is None else "row"
        labels.quarantine.append(Quarantined(kind, file, problem.row, problem.reason, problem.remedy))
        lost.add(pair(problem.recording).recording)
    if not content.rows and not content.problems:
        homeless |= _attach_empty(labels, pair(None).recording, durations_s)
    labels.quarantine += [_homeless(file, reference, rows, pair(reference)) for reference, rows in homeless.items()]
    labels.labelled |= usable
    labels.unusable |= {recording for recording in lost - usable if recording is not None}


def _attach_empty(
    labels: Labels, recording: str | None, durations_s: Mapping[str, float | None]
) -> dict[str | None, list[int]]:
    """Count the recording of a table without rows as labelled; a table without a recording is homeless."""
    if recording is None or durations_s[recording] is None:
        return {None: []}
    labels.labelled.add(recording)
    return {}


def _homeless(file: str, reference: str | None, rows: list[int], pairing: Pairing) -> Quarantined:
    """The quarantine row of a table, or of all its rows that name one recording, that nothing can be done with."""
    many = f" ({len(rows)} rows)" if len(rows) > 1 else ""
    first = rows[0] if rows and reference is not None else None
    if pairing.recording is None:
        return Quarantined("table", file, first, pairing.reason + many, pairing.remedy)
    reason = f"belongs to {pairing.recording}, which cannot be read{many}"
    return Quarantined("table", file, first, reason, "replace the recording by a good copy")


def _fit(row: AnnotationRow, duration_s: float) -> AnnotationRow | str:
    """The row clipped to its recording, without impossible frequencies; or why it does not fit."""
    if row.start_s < -_OVERHANG_S or row.start_s >= duration_s:
        return f"row outside its recording: starts at {row.start_s:g} s, the recording lasts {duration_s:g} s"
    if row.end_s > duration_s + _OVERHANG_S or row.end_s <= 0:
        return f"row outside its recording: ends at {row.end_s:g} s, the recording lasts {duration_s:g} s"
    low_hz, high_hz = row.low_hz, row.high_hz
    if low_hz is not None and high_hz is not None and low_hz >= high_hz:
        low_hz = high_hz = None
    start_s, end_s = max(0.0, row.start_s), min(duration_s, row.end_s)
    if (start_s, end_s, low_hz, high_hz) == (row.start_s, row.end_s, row.low_hz, row.high_hz):
        return row
    return replace(row, start_s=start_s, end_s=end_s, low_hz=low_hz, high_hz=high_hz)


def _merge_identical(rows: list[AttachedRow]) -> tuple[list[AttachedRow], list[Quarantined]]:
    """The rows sorted by recording, start, end and label, each annotation once, and where the others stood."""
    ordered = sorted(
        rows, key=lambda a: (a.recording, a.row.start_s, a.row.end_s, a.row.label, a.source_file, a.row.source_row)
    )
    kept: list[AttachedRow] = []
    merged: list[Quarantined] = []
    latest: dict[tuple[str, str], list[int]] = {}
    for attached in ordered:
        row = attached.row
        near = latest.setdefault((attached.recording, row.label), [])
        near[:] = [i for i in near if row.start_s - kept[i].row.start_s <= _SAME_S + 1e-9]
        same = next((i for i in near if abs(row.end_s - kept[i].row.end_s) <= _SAME_S + 1e-9), None)
        if same is None:
            near.append(len(kept))
            kept.append(attached)
            continue
        first = kept[same]
        kept[same] = replace(first, row=_completed(first.row, row))
        reason = f"same label and times as row {first.row.source_row} of {first.source_file}"
        merged.append(Quarantined("row", attached.source_file, row.source_row, reason, "nothing to do: counted once"))
    return kept, merged


def _completed(row: AnnotationRow, other: AnnotationRow) -> AnnotationRow:
    """`row` with the frequencies and the quality that only `other` gives."""
    if row.low_hz is None and row.high_hz is None:
        row = replace(row, low_hz=other.low_hz, high_hz=other.high_hz)
    return row if row.quality is not None else replace(row, quality=other.quality)
