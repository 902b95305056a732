"""The rows of the tables recordings and annotations, and of the quarantine for recordings that are not labelled."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otus.config import CorpusSettings
from otus.inventory.extracts import Extract
from otus.inventory.flags import flags_text
from otus.inventory.labels import Labels
from otus.inventory.names import later, origin_of
from otus.inventory.recordings import AudioFile, Quarantined
from otus.inventory.sheet import SheetEntry


@dataclass(frozen=True)
class Known:
    """What is known of the recordings besides their files, by path, and the SNR of each row of `labels`."""

    ids: Mapping[str, str]
    groups: Mapping[str, str]
    extracts: Mapping[str, Extract]
    raws: Mapping[str, str]
    sheet: Mapping[str, SheetEntry]
    labels: Labels
    snr_db: Sequence[float | None]

    def extracts_of(self) -> Counter[str]:
        """Return how many extracts each raw recording has."""
        return Counter(extract.raw for extract in self.extracts.values() if extract.raw is not None)


def recording_row(file: AudioFile, settings: CorpusSettings, known: Known, labelled: bool) -> dict[str, object]:
    """Return one row of the table recordings."""
    info, content = file.info, file.content
    levels = content.levels if content else None
    entry, extract = known.sheet.get(file.path), known.extracts.get(file.path)
    origin = origin_of(file.path, settings.names)
    return {
        "recording_id": known.ids[file.path],
        "path": file.path,
        "group": known.groups[file.path],
        "duration_s": info.duration_s if info else None,
        "n_samples": info.n_samples if info else None,
        "sample_rate": info.sample_rate if info else None,
        "channels": info.channels if info else None,
        "subtype": info.subtype if info else None,
        "sha256": file.sha256,
        "content_sha256": content.sha256 if content else None,
        "start_time": _began(origin.start_time, extract, settings),
        "site": (entry and entry.site) or origin.site,
        "recorder": origin.recorder,
        "raw": known.raws.get(file.path),
        "parent": known.ids[extract.raw] if extract and extract.raw else None,
        "parent_start_s": extract.start_s if extract else None,
        "peak_dbfs": levels.peak_dbfs if levels else None,
        "rms_dbfs": levels.rms_dbfs if levels else None,
        "clipped_share": levels.clipped_share if levels else None,
        "silent_share": levels.silent_share if levels else None,
        "flags": flags_text(file.found, (origin.flag, extract.flag if extract else None)),
        "given_split": entry.split if entry else None,
        "labelled": labelled,
        "readable": info is not None,
        "error": file.error,
    }


def _began(start_time: str | None, extract: Extract | None, settings: CorpusSettings) -> str | None:
    """When a recording began; an extract whose name gives the time of its raw recording began so much later."""
    if start_time is None or extract is None or start_time != origin_of(extract.place, settings.names).start_time:
        return start_time
    return None if extract.start_s is None else later(start_time, extract.start_s)


def is_labelled(file: AudioFile, settings: CorpusSettings, labels: Labels, n_extracts: int) -> bool:
    """Return whether every call in a recording is known: from its tables, or because it is known to hold none.

    A raw recording without a table of its own is not known to hold none: its extracts are what was listened to.
    """
    if file.info is None:
        return False
    by_default = settings.unlabelled == "negative" and file.path not in labels.unusable and not n_extracts
    return file.path in labels.labelled or by_default


def not_labelled(path: str, labels: Labels, n_extracts: int) -> Quarantined:
    """Return the quarantine row of a readable recording that is not labelled."""
    if path in labels.unusable:
        return Quarantined("unlabelled", path, None, "nothing in its tables can be used", "correct its tables")
    if n_extracts:
        reason = f"raw recording of {n_extracts} extract{'s' * (n_extracts > 1)}, used only for noise"
        return Quarantined("unlabelled", path, None, reason, "nothing to do, unless all of it is labelled: add a table")
    reason = "has no annotation file or row, and corpus.unlabelled is 'exclude'"
    return Quarantined("unlabelled", path, None, reason, "add a table or set corpus.unlabelled: negative")


def annotation_columns(known: Known) -> dict[str, list[object]]:
    """Return the columns of the table annotations; the number in an id counts by start, end and label."""
    numbers: Counter[str] = Counter()
    columns: dict[str, list[object]] = {
        name: []
        for name in (
            "annotation_id", "recording_id", "start_s", "end_s", "low_hz", "high_hz", "label", "quality",
            "snr_db", "source_file", "source_row",
        )
    }  # fmt: skip
    for attached, snr_db in zip(known.labels.rows, known.snr_db, strict=True):
        row, recording_id = attached.row, known.ids[attached.recording]
        numbers[recording_id] += 1
        values = (
            f"{recording_id}_a{numbers[recording_id]:04d}", recording_id, row.start_s, row.end_s, row.low_hz,
            row.high_hz, row.label, row.quality, snr_db, attached.source_file, row.source_row,
        )  # fmt: skip
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return columns
