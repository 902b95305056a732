"""The inventory: what is there, what is readable, what is labelled, and a quarantine row for everything else."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from otus.annotations.file_names import cut_from
from otus.annotations.pairing import RecordingIndex, index_recordings, recording_named
from otus.annotations.text import excerpt, listed
from otus.config import CorpusSettings, ExtractSettings
from otus.errors import DataError
from otus.fingerprint import CorpusFiles, explore, select_files
from otus.inventory.accounts import check_annotation_files, check_audio_files
from otus.inventory.extracts import Extract, find_extracts, groups_of, raw_keys
from otus.inventory.labels import Labels, attach_labels
from otus.inventory.names import recording_ids
from otus.inventory.recordings import AudioFile, Quarantined, left_out, not_opened, originals, shown
from otus.inventory.rows import Known, annotation_columns, is_labelled, not_labelled, recording_row
from otus.inventory.sheet import read_sheet
from otus.inventory.snr_survey import annotation_snr_db
from otus.inventory.survey import survey
from otus.tables import table


@dataclass(frozen=True)
class Inventory:
    """The tables recordings, annotations, annotation_files and quarantine of `otus.tables`."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    annotation_files: pd.DataFrame
    quarantine: pd.DataFrame


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def take_inventory(
    root: Path,
    settings: CorpusSettings,
    *,
    workers: int = 1,
    cache: Path | None = None,
    progress: Callable[[str], None] = _to_stderr,
) -> Inventory:
    """Return the recordings below `root`, their annotations, and what had to be left out and why.

    Files with the same samples are one recording with the tables of all. `workers` threads look into the audio; what
    the Parquet file `cache` tells of unchanged files is taken from there, and what is found is added to it; the table
    `<cache>_snr` beside it does so for the SNR of annotations.
    Raises DataError if a glob or the sheet matches nothing, no recording can be read, no annotation has a target
    label, or the settings contradict each other or the files; StageError if the tables do not add up.
    """
    found, closed = explore(root)
    selected = select_files(found, settings)
    files, quarantine = _writable(selected)
    quarantine += [not_opened(path) for path in closed]
    _check(root, settings, files)
    files, cut_outs = _without_cut_outs(root, settings, files)
    quarantine += cut_outs
    progress(f"{len(files.audio)} audio files and {sum(map(len, files.annotations))} annotation files in {root}")
    audio = survey(root, files.audio, settings.audio_check, workers=workers, cache=cache, progress=progress)
    if all(file.info is None for file in audio):
        raise DataError(f"{root}: none of {len(audio)} audio files can be read; {audio[0].path} {audio[0].error}.")

    kept = originals(audio)
    index = index_recordings((file.path for file in audio), kept)
    labels = attach_labels(
        root,
        zip(settings.annotations, files.annotations, strict=True),
        index,
        {file.path: file.info.duration_s if file.info else None for file in audio},
        progress,
        sample_rates={file.path: file.info.sample_rate if file.info else None for file in audio},
        label_map=settings.labels,
    )
    sheet, unknown = read_sheet(root, files.sheet.path, index) if files.sheet else ({}, [])
    quarantine += [*left_out(audio, kept), *labels.quarantine, *unknown]
    _check_targets(settings, labels, quarantine, progress)

    recordings = [file for file in audio if kept[file.path] == file.path]
    ids = recording_ids(file.path for file in audio)
    extracts = find_extracts(audio, kept, index, settings.extracts)
    _say_no_extract(settings, extracts, progress)
    groups = groups_of([file.path for file in recordings], ids, settings.group, extracts, sheet, progress)
    beside = cache and cache.with_name(f"{cache.stem}_snr.parquet")
    found_at = {file.path: file for file in files.audio}
    snr_db = annotation_snr_db(
        root, labels.rows, found_at, settings.targets, workers=workers, cache=beside, progress=progress
    )
    known = Known(ids, groups, extracts, raw_keys(extracts, ids), sheet, labels, snr_db)
    inventory = _tables(recordings, settings, known, quarantine)
    _check_accounts(inventory, selected, files)
    return inventory


def _check_accounts(inventory: Inventory, selected: CorpusFiles, read: CorpusFiles) -> None:
    """Raise StageError unless every selected audio file and every row of the tables read is accounted for."""
    check_audio_files(map(shown, {file.path for file in selected.audio}), inventory.recordings, inventory.quarantine)
    tables = (file.path for source in read.annotations for file in source)
    check_annotation_files(tables, inventory.annotation_files, inventory.annotations, inventory.quarantine)


def _tables(files: list[AudioFile], settings: CorpusSettings, known: Known, quarantine: list[Quarantined]) -> Inventory:
    """The tables of the inventory, the quarantine completed by the recordings that are not labelled."""
    n_extracts = known.extracts_of()
    labelled = {file.path: is_labelled(file, settings, known.labels, n_extracts[file.path]) for file in files}
    rest = [file.path for file in files if file.info and not labelled[file.path]]
    quarantine += [not_labelled(path, known.labels, n_extracts[path]) for path in rest]
    quarantine.sort(key=lambda q: (q.kind, q.path, -1 if q.row is None else q.row))
    rows = [recording_row(file, settings, known, labelled[file.path]) for file in files]
    return Inventory(
        table("recordings", rows),
        table("annotations", annotation_columns(known)),
        table("annotation_files", [dataclasses.asdict(account) for account in known.labels.files]),
        table("quarantine", [dataclasses.asdict(row) for row in quarantine]),
    )


def _writable(files: CorpusFiles) -> tuple[CorpusFiles, list[Quarantined]]:
    """The files whose names can stand in a table, and a quarantine row for each other one."""
    named = CorpusFiles(
        tuple(file for file in files.audio if _is_text(file.path)),
        tuple(tuple(file for file in source if _is_text(file.path)) for source in files.annotations),
        files.sheet,
    )
    reason, remedy = "its name is not valid UTF-8", "rename the file"
    audio = {file.path for file in files.audio}
    tables = {file.path for source in files.annotations for file in source} - audio
    return named, [
        Quarantined(kind, shown(path), None, reason, remedy)
        for kind, paths in (("recording", audio), ("table", tables))
        for path in sorted(paths)
        if not _is_text(path)
    ]


def _is_text(path: str) -> bool:
    """Whether a file name is valid UTF-8; Python keeps other bytes as lone surrogates, which no table can hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _without_cut_outs(
    root: Path, settings: CorpusSettings, files: CorpusFiles
) -> tuple[CorpusFiles, list[Quarantined]]:
    """The files without the audio that is a call cut out of a recording, as an annotation source reads its name.

    Such a call would be a recording of its own: in another group than the one it was cut from, and as noise if it has
    no annotation. Raises DataError if nothing else is left.
    """
    audio = {file.path for file in files.audio}
    index: RecordingIndex | None = None
    quarantine = []
    for source, found in zip(settings.annotations, files.annotations, strict=True):
        for file in found:
            clip = cut_from(file.path, source)
            if clip is None or file.path not in audio:
                continue
            index = index or index_recordings(sorted(audio))
            named = recording_named(index, clip, file.path).recording
            if named is None:  # not there, or one of several with a name like that of this file
                named = recording_named(index_recordings([file.path]), clip, file.path).recording
            if named != file.path:
                reason = f"is a cut-out call of {excerpt(clip)}, read as an annotation"
                quarantine.append(Quarantined("cutout", file.path, None, reason, "nothing to do"))
    left_out = {row.path for row in quarantine}
    if audio and audio == left_out:
        raise DataError(
            f"{root}: all {len(audio)} audio files are cut-out calls of recordings that are not there, such as "
            f"{min(audio)}; add the recordings."
        )
    return replace(files, audio=tuple(file for file in files.audio if file.path not in left_out)), quarantine


def _say_no_extract(settings: CorpusSettings, extracts: Mapping[str, Extract], progress: Callable[[str], None]) -> None:
    """Tell if somebody has written corpus.extracts and no file name fits.

    The workflow hands on every setting with its default; only `extracts: {}` is then known as written from its being
    empty, and a pattern or unit from its being another one.
    """
    asked = settings.extracts
    if asked is None or extracts or "extracts" not in settings.model_fields_set:
        return
    if not asked.model_fields_set or asked != ExtractSettings():
        progress("corpus.extracts: no file name is that of an extract; correct its pattern, or leave extracts out")


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
    found = listed(f"{label} ({count})" for label, count in counts.most_common()) or "none"
    first = next((q for q in quarantine if q.kind in ("table", "row", "dropped")), None)
    hint = (
        f"in quarantine, for example: {first.path} {first.reason}"
        if first and not counts
        else "correct corpus.targets or corpus.labels"
    )
    raise DataError(
        f"corpus.targets: no annotation has a target label ({', '.join(settings.targets)}); "
        f"labels found: {found}; {hint}."
    )
