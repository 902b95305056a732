"""The annotation files of a corpus, attached to its recordings."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from otus.annotations import (
    AnnotationFile,
    AnnotationRow,
    Extent,
    ExtentOf,
    LabelMap,
    Pairing,
    Problem,
    RecordingIndex,
    idle_entries,
    mapped_label,
    read_annotations,
    recording_named,
    recording_of_file,
)
from otus.config import AnnotationSource
from otus.errors import StageError
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


@dataclass(frozen=True)
class AnnotationFileAccount:
    """What became of the rows of one annotation file: n_rows = n_annotations + n_views + n_quarantined."""

    path: str
    format: str
    n_rows: int
    n_annotations: int
    n_views: int
    n_quarantined: int


class _Read(NamedTuple):
    """What the reader says of one file."""

    path: str
    format: str
    n_rows: int
    n_views: int


@dataclass
class Labels:
    """The annotations of a corpus, which recordings have a usable table or only an unusable one, and every file."""

    rows: list[AttachedRow] = field(default_factory=list)
    labelled: set[str] = field(default_factory=set)
    unusable: set[str] = field(default_factory=set)
    quarantine: list[Quarantined] = field(default_factory=list)
    files: list[AnnotationFileAccount] = field(default_factory=list)


def attach_labels(
    root: Path,
    sources: Iterable[tuple[AnnotationSource, Sequence[FoundFile]]],
    index: RecordingIndex,
    durations_s: Mapping[str, float | None],
    progress: Callable[[str], None],
    *,
    sample_rates: Mapping[str, int | None],
    label_map: LabelMap,
) -> Labels:
    """Return the annotations in all files of `sources`, each with its recording and under its mapped label.

    `durations_s` gives the length of every kept recording, None if it cannot be read, and `sample_rates` how many
    samples a second of it has, for tables that count in samples. A row that lies outside its recording, one whose
    label `label_map` drops, and a file or row without a recording goes to quarantine. A recording counts as labelled
    if one of its tables is empty, has a usable row or one that is dropped: what cannot be used does not prove that
    there is no call. Raises StageError if the rows of a file do not add up.
    """
    labels = Labels()
    targets: dict[str, str | None] = {}
    read: list[_Read] = []
    for source, files in sources:
        for number, file in enumerate(files, start=1):
            pair = _pairs(file.path, index)
            extent_of = _extents(pair, durations_s, sample_rates)
            content = read_annotations(root / file.path, source, file.path, extent_of)
            for label in {row.label for row in content.rows} - targets.keys():
                targets[label] = mapped_label(label, label_map)
            _attach(labels, file.path, content, pair, durations_s, targets)
            read.append(_Read(file.path, content.format, content.n_rows, content.n_views))
            if number % 5000 == 0:
                progress(f"read {number} of {len(files)} annotation files of '{source.files}'")
    for entry in idle_entries(label_map, targets.keys()):
        progress(f"corpus.labels: '{entry}' fits none of the labels that were read")
    labels.unusable -= labels.labelled
    labels.rows, merged = _merge_identical(labels.rows)
    labels.quarantine += merged
    labels.files = _accounts(read, labels)
    return labels


def _pairs(file: str, index: RecordingIndex) -> Callable[[str | None], Pairing]:
    """Finds the recording that a row of `file` names, or the one that the file belongs to."""
    found: dict[str | None, Pairing] = {}

    def pair(reference: str | None) -> Pairing:
        if reference not in found:
            found[reference] = (
                recording_of_file(index, file) if reference is None else recording_named(index, reference, file)
            )
        return found[reference]

    return pair


def _extents(
    pair: Callable[[str | None], Pairing],
    durations_s: Mapping[str, float | None],
    sample_rates: Mapping[str, int | None],
) -> ExtentOf:
    """Finds how long the recording is that a row names."""

    def extent_of(reference: str | None) -> Extent | None:
        recording = pair(reference).recording
        if recording is None:
            return None
        duration_s, sample_rate = durations_s[recording], sample_rates[recording]
        return None if duration_s is None or sample_rate is None else Extent(duration_s, sample_rate)

    return extent_of


def _attach(
    labels: Labels,
    file: str,
    content: AnnotationFile,
    pair: Callable[[str | None], Pairing],
    durations_s: Mapping[str, float | None],
    targets: Mapping[str, str | None],
) -> None:
    """Add the content of one file to `labels`; `targets` says what becomes of each label."""
    usable: set[str] = set()
    lost: set[str | None] = set()
    dropped: Counter[str] = Counter()
    homeless: dict[str | None, list[int]] = {}
    for reference, number in content.unplaced:
        homeless.setdefault(reference, []).append(number)
    for row in content.rows:
        recording = pair(row.recording).recording
        duration_s = durations_s[recording] if recording is not None else None
        if recording is None or duration_s is None:
            homeless.setdefault(row.recording, []).append(row.source_row)
            continue
        target = targets[row.label]
        if target is None:
            dropped[row.label] += 1
            usable.add(recording)
            continue
        fitted = _fit(row, target, duration_s)
        if isinstance(fitted, str):
            remedy = "correct the times, or check that the table belongs to this recording"
            labels.quarantine.append(Quarantined("row", file, row.source_row, fitted, remedy, 1))
            lost.add(recording)
        else:
            labels.rows.append(AttachedRow(recording, file, fitted))
            usable.add(recording)
    lost |= {pair(problem.recording).recording for problem in content.problems}
    labels.quarantine += _problems(file, content.problems)
    if not content.n_rows and not content.problems:
        homeless |= _attach_empty(labels, pair(None).recording, durations_s)
    labels.quarantine += [_homeless(file, reference, rows, pair(reference)) for reference, rows in homeless.items()]
    labels.quarantine += [_dropped(file, label, count) for label, count in dropped.items()]
    labels.labelled |= usable
    labels.unusable |= {recording for recording in lost - usable if recording is not None}


def _problems(file: str, problems: Iterable[Problem]) -> list[Quarantined]:
    """The quarantine rows of a file; one for what is wrong with the whole of it, however many recordings that hits."""
    n_rows: Counter[tuple[int | None, str, str]] = Counter()
    for problem in problems:
        n_rows[problem.row, problem.reason, problem.remedy] += problem.n_rows
    return [
        Quarantined("table" if row is None else "row", file, row, reason, remedy, count)
        for (row, reason, remedy), count in n_rows.items()
    ]


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
        return Quarantined("table", file, first, pairing.reason + many, pairing.remedy, len(rows))
    reason = f"belongs to {pairing.recording}, which cannot be read{many}"
    return Quarantined("table", file, first, reason, "replace the recording by a good copy", len(rows))


def _dropped(file: str, label: str, count: int) -> Quarantined:
    """The quarantine row of all rows of a file under a label that the map drops."""
    reason = f"its rows with the label '{label}' are dropped by corpus.labels ({count} row{'s' * (count > 1)})"
    return Quarantined("dropped", file, None, reason, "nothing to do, unless corpus.labels is wrong", count)


def _fit(row: AnnotationRow, label: str, duration_s: float) -> AnnotationRow | str:
    """The row under `label`, clipped to its recording, without impossible frequencies; or why it does not fit."""
    if row.start_s < -_OVERHANG_S or row.start_s >= duration_s:
        return f"row outside its recording: starts at {row.start_s:g} s, the recording lasts {duration_s:g} s"
    if row.end_s > duration_s + _OVERHANG_S or row.end_s <= 0:
        return f"row outside its recording: ends at {row.end_s:g} s, the recording lasts {duration_s:g} s"
    low_hz, high_hz = row.low_hz, row.high_hz
    if (low_hz is not None and low_hz < 0) or (high_hz is not None and high_hz <= (low_hz or 0.0)):
        low_hz = high_hz = None
    start_s, end_s = max(0.0, row.start_s), min(duration_s, row.end_s)
    if (start_s, end_s, low_hz, high_hz, label) == (row.start_s, row.end_s, row.low_hz, row.high_hz, row.label):
        return row
    return AnnotationRow(start_s, end_s, low_hz, high_hz, label, row.quality, row.recording, row.source_row)


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
        merged.append(
            Quarantined("row", attached.source_file, row.source_row, reason, "nothing to do: counted once", 1)
        )
    return kept, merged


def _completed(row: AnnotationRow, other: AnnotationRow) -> AnnotationRow:
    """`row` with the frequencies and the quality that only `other` gives."""
    if row.low_hz is None and row.high_hz is None:
        row = replace(row, low_hz=other.low_hz, high_hz=other.high_hz)
    return row if row.quality is not None else replace(row, quality=other.quality)


def _accounts(files: Iterable[_Read], labels: Labels) -> list[AnnotationFileAccount]:
    """The account of every file, by path; StageError if a row of it is neither kept nor left out."""
    kept = Counter(attached.source_file for attached in labels.rows)
    left_out: Counter[str] = Counter()
    for entry in labels.quarantine:
        left_out[entry.path] += entry.n_rows
    accounts = []
    for path, format_, n_rows, n_views in sorted(files):
        account = AnnotationFileAccount(path, format_, n_rows, kept[path], n_views, left_out[path])
        if n_rows != account.n_annotations + n_views + account.n_quarantined:
            raise StageError(
                f"{path}: of its {n_rows} rows {account.n_annotations} became annotations, {n_views} are further views "
                f"and {account.n_quarantined} are in quarantine, which does not add up; please report this table."
            )
        accounts.append(account)
    return accounts
