"""The inventory: what is there, what is readable, what is labelled, and a quarantine row for everything else."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from otus.annotations.pairing import index_recordings
from otus.config import CorpusSettings
from otus.errors import DataError
from otus.fingerprint import CorpusFiles, FoundFile, is_audio, select_files, walk
from otus.inventory.labels import Labels, attach_labels
from otus.inventory.names import group_of, recording_ids, start_time
from otus.inventory.recordings import AudioFile, Quarantined, inspect_files, left_out, originals
from otus.inventory.sheet import SheetEntry, read_sheet
from otus.tables import table


@dataclass(frozen=True)
class Inventory:
    """The tables recordings, annotations and quarantine of `otus.tables`."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    quarantine: pd.DataFrame


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def take_inventory(
    root: Path, settings: CorpusSettings, *, workers: int = 1, progress: Callable[[str], None] = _to_stderr
) -> Inventory:
    """Return the recordings below `root`, their annotations, and what had to be left out and why.

    Byte-identical files are one recording with the tables of all. Audio is inspected by `workers` threads.
    Raises DataError if a glob or the sheet matches nothing, no recording can be read, no annotation has a target
    label, or the settings contradict each other or the files.
    """
    found = select_files(walk(root), settings)
    quarantine = [_unwritable(file) for file in _all_files(found) if not _is_text(file.path)]
    files = dataclasses.replace(
        found,
        audio=tuple(file for file in found.audio if _is_text(file.path)),
        annotations=tuple(tuple(f for f in group if _is_text(f.path)) for group in found.annotations),
    )
    _check(root, settings, files)
    progress(f"{len(files.audio)} audio files and {sum(map(len, files.annotations))} annotation files in {root}")

    audio = inspect_files(root, files.audio, workers=workers, progress=progress)
    if all(file.info is None for file in audio):
        raise DataError(f"{root}: none of {len(audio)} audio files can be read; {audio[0].path} {audio[0].error}.")
    kept = originals(audio)
    index = index_recordings((file.path for file in audio), kept)
    durations_s = {file.path: file.info.duration_s if file.info else None for file in audio}
    labels = attach_labels(
        root, zip(settings.annotations, files.annotations, strict=True), index, durations_s, progress
    )
    entries, unknown = read_sheet(root, files.sheet.path, index) if files.sheet else ({}, [])
    quarantine += [*left_out(audio, kept), *labels.quarantine, *unknown]
    _check_targets(settings, labels, quarantine, progress)

    ids = recording_ids(file.path for file in audio)
    recordings = [
        _recording(file, ids[file.path], settings, labels, entries.get(file.path))
        for file in audio
        if kept[file.path] == file.path
    ]
    if settings.unlabelled == "exclude":
        quarantine += [_unlabelled(str(r["path"]), labels) for r in recordings if r["readable"] and not r["labelled"]]
    quarantine.sort(key=lambda q: (q.kind, q.path, -1 if q.row is None else q.row))
    return Inventory(
        table("recordings", recordings),
        table("annotations", _annotations(labels, ids)),
        table("quarantine", [dataclasses.asdict(row) for row in quarantine]),
    )


def summary_lines(inventory: Inventory) -> list[str]:
    """Return what the inventory found in a few sentences: recordings, hours, labels, quarantine by kind."""
    recordings, annotations, quarantine = inventory.recordings, inventory.annotations, inventory.quarantine
    readable = recordings[recordings["readable"].astype(bool)]
    labelled = readable[readable["labelled"].astype(bool)]
    hours, labelled_hours = readable["duration_s"].sum() / 3600, labelled["duration_s"].sum() / 3600
    lines = [
        f"{len(readable)} readable recordings in {readable['group'].nunique()} groups, {hours:.2f} h; "
        f"{len(labelled)} of them labelled, {labelled_hours:.2f} h.",
        f"{len(annotations)} annotations in {annotations['recording_id'].nunique()} recordings: "
        f"{_counted(annotations['label'])}.",
    ]
    if len(quarantine):
        lines.append(f"{len(quarantine)} entries in quarantine: {_counted(quarantine['kind'])}.")
    return lines


def _counted(values: "pd.Series[str]") -> str:
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common()) or "none"


def _all_files(files: CorpusFiles) -> list[FoundFile]:
    return [*files.audio, *(file for group in files.annotations for file in group)]


def _is_text(path: str) -> bool:
    """Whether a file name is valid UTF-8; Python keeps other bytes as lone surrogates, which no table can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def _unwritable(file: FoundFile) -> Quarantined:
    shown = file.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    kind = "recording" if is_audio(file.path) else "table"
    return Quarantined(kind, shown, None, "its name is not valid UTF-8", "rename the file")


def _check(root: Path, settings: CorpusSettings, files: CorpusFiles) -> None:
    """Raise DataError if something that the settings name is not there, or one file is named twice."""
    if not files.audio:
        globs = ", ".join(settings.recordings)
        raise DataError(f"{root}: no audio file below it matches corpus.recordings ({globs}); correct root or globs.")
    owner: dict[str, str] = {}
    for source, found in zip(settings.annotations, files.annotations, strict=True):
        if not found:
            raise DataError(f"corpus.annotations: no file below {root} matches '{source.files}'; correct the glob.")
        for file in found:
            if file.path in owner:
                raise DataError(
                    f"corpus.annotations: {file.path} is matched by '{owner[file.path]}' and by '{source.files}'; "
                    "make the globs exclude each other."
                )
            owner[file.path] = source.files
    if settings.sheet and files.sheet is None:
        raise DataError(f"corpus.sheet: there is no file {settings.sheet} below {root}; correct its path.")


def _check_targets(
    settings: CorpusSettings, labels: Labels, quarantine: list[Quarantined], progress: Callable[[str], None]
) -> None:
    """Raise DataError if no annotation has a target label; say which targets have none."""
    counts = Counter(attached.row.label for attached in labels.rows)
    missing = [target for target in settings.targets if not counts[target]]
    if len(missing) < len(settings.targets):
        for target in missing:
            progress(f"no annotation has the target label '{target}'")
        return
    found = ", ".join(f"{label} ({count})" for label, count in counts.most_common()) or "none"
    first = next((q for q in quarantine if q.kind in ("table", "row")), None)
    hint = f"; in quarantine, for example: {first.path} {first.reason}" if first and not counts else ""
    raise DataError(
        f"corpus.targets: no annotation has a target label ({', '.join(settings.targets)}); "
        f"labels found: {found}{hint}."
    )


def _recording(
    file: AudioFile, recording_id: str, settings: CorpusSettings, labels: Labels, entry: SheetEntry | None
) -> dict[str, object]:
    """One row of the table recordings."""
    info = file.info
    by_default = settings.unlabelled == "negative" and file.path not in labels.unusable
    return {
        "recording_id": recording_id,
        "path": file.path,
        "group": (entry and entry.group) or group_of(file.path, recording_id, settings.group),
        "duration_s": info.duration_s if info else None,
        "n_samples": info.n_samples if info else None,
        "sample_rate": info.sample_rate if info else None,
        "channels": info.channels if info else None,
        "subtype": info.subtype if info else None,
        "sha256": file.sha256,
        "start_time": start_time(file.path),
        "site": entry.site if entry else None,
        "given_split": entry.split if entry else None,
        "labelled": info is not None and (file.path in labels.labelled or by_default),
        "readable": info is not None,
        "error": file.error,
    }


def _unlabelled(path: str, labels: Labels) -> Quarantined:
    if path in labels.unusable:
        return Quarantined("unlabelled", path, None, "nothing in its tables can be used", "correct its tables")
    reason = "has no annotation file or row, and corpus.unlabelled is 'exclude'"
    return Quarantined("unlabelled", path, None, reason, "add a table or set corpus.unlabelled: negative")


def _annotations(labels: Labels, ids: dict[str, str]) -> dict[str, list[object]]:
    """The columns of the table annotations; the number in an id counts by start, end and label."""
    numbers: Counter[str] = Counter()
    columns: dict[str, list[object]] = {
        name: []
        for name in (
            "annotation_id", "recording_id", "start_s", "end_s", "low_hz", "high_hz", "label", "quality",
            "source_file", "source_row",
        )
    }  # fmt: skip
    for attached in labels.rows:
        row, recording_id = attached.row, ids[attached.recording]
        numbers[recording_id] += 1
        values = (
            f"{recording_id}_a{numbers[recording_id]:04d}", recording_id, row.start_s, row.end_s, row.low_hz,
            row.high_hz, row.label, row.quality, attached.source_file, row.source_row,
        )  # fmt: skip
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return columns
