"""False alarms of an earlier model: selections that touch no annotation, as noise clips."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from otus.annotations import index_recordings, read_annotations, recording_named
from otus.config import AnnotationSource, DatasetSettings
from otus.errors import DataError
from otus.tables import read_table

#: What a table of selections without scores gets: its rows count in their order.
_NO_SCORE = 0.0


@dataclass(frozen=True)
class Selections:
    """What an earlier model detected: recording_id, start_s, end_s, score.

    `unreadable` rows of the table, and those of an `unknown` recording, could not be taken over.
    """

    rows: pd.DataFrame
    unreadable: int = 0
    unknown: int = 0


def read_selections(path: Path, recordings: pd.DataFrame) -> Selections:
    """Return the selections in a Parquet table of Otus, or in a CSV or Raven table that names recordings.

    Raises DataError if the file cannot be read, or names none of the `recordings`.
    """
    if not path.is_file():
        raise DataError(f"datasets: hard_negatives.selections: {path} does not exist; correct the path.")
    found, unreadable = _from_parquet(path) if path.suffix == ".parquet" else _from_text(path, recordings)
    known = found[found["recording_id"].isin(recordings["recording_id"])]
    if len(known) == 0:
        raise DataError(
            f"{path}: none of {len(found)} selections names a recording of this corpus; give another table."
        )
    return Selections(known.reset_index(drop=True), unreadable, len(found) - len(known))


def false_alarm_clips(
    selections: Selections | None,
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    calls: pd.DataFrame,
    settings: DatasetSettings,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return noise clips (table clips without side, origin false_alarm), and what became of every selection.

    The best scores come first. A selection that comes nearer to an annotation than the margin, or overlaps a better
    one, is left out: it is no false alarm, or the same one. Only labelled recordings count: elsewhere nobody knows.
    """
    if selections is None or settings.hard_negatives is None:
        return _as_clips([]), {}
    became = dict.fromkeys(_BECAME, 0) | {"unreadable": selections.unreadable, "unknown recording": selections.unknown}
    facts = recordings[recordings["labelled"].astype(bool)].set_index("recording_id")
    usable = selections.rows[selections.rows["recording_id"].isin(facts.index)]
    became["not labelled"] = len(selections.rows) - len(usable)
    ordered = usable.sort_values(["score", "recording_id", "start_s"], ascending=[False, True, True], kind="stable")
    taken = _Taken(annotations, settings.margin_s)
    rows: list[tuple[str, int, int]] = []
    most = int(np.ceil(settings.hard_negatives.per_target * len(calls)))
    for recording_id, start_s, end_s in ordered[["recording_id", "start_s", "end_s"]].itertuples(index=False):
        rate, length = facts.at[recording_id, "sample_rate"], int(facts.at[recording_id, "n_samples"])
        start, end = max(0, round(start_s * rate)), min(length, round(end_s * rate))
        if end <= start:
            outcome = "outside the recording"
        elif len(rows) == most:
            outcome = "over the limit"
        else:
            outcome = taken.add(recording_id, start / rate, end / rate)
        became[outcome] += 1
        if outcome == "used":
            rows.append((recording_id, start, end))
    return _as_clips(rows), became


#: What can become of a selection.
_BECAME = (
    "used", "unreadable", "unknown recording", "not labelled", "outside the recording", "near an annotation",
    "overlapping a better one", "over the limit",
)  # fmt: skip


def _as_clips(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=["recording_id", "start_sample", "end_sample"])
    whole = found.astype({"start_sample": np.int64, "end_sample": np.int64})
    return whole.assign(**{"class": "noise", "label": None, "quality": None, "origin": "false_alarm"})


class _Taken:
    """Annotations grown by a margin, and false alarms that were taken."""

    def __init__(self, annotations: pd.DataFrame, margin_s: float) -> None:
        self._margin_s = margin_s
        self._rows = {
            recording_id: rows[["start_s", "end_s"]].to_numpy(dtype=float)
            for recording_id, rows in annotations.groupby("recording_id")
        }
        self._added: dict[str, list[tuple[float, float]]] = {}

    def add(self, recording_id: str, start_s: float, end_s: float) -> str:
        """Take the interval if nothing is in its way; return `used`, or what was."""
        rows = self._rows.get(recording_id, np.zeros((0, 2)))
        near = (rows[:, 0] - self._margin_s < end_s) & (rows[:, 1] + self._margin_s > start_s)
        added = self._added.setdefault(recording_id, [])
        if near.any():
            return "near an annotation"
        if any(a < end_s and b > start_s for a, b in added):
            return "overlapping a better one"
        added.append((start_s, end_s))
        return "used"


def _from_parquet(path: Path) -> tuple[pd.DataFrame, int]:
    found = read_table(path, "selections")
    return found.assign(score=found["peak_score"])[["recording_id", "start_s", "end_s", "score"]], 0


def _from_text(path: Path, recordings: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of a table that name their recordings by id, path or file name, in their order, and how many do not."""
    content = read_annotations(path, AnnotationSource(files=path.name, label="false alarm"))
    if not content.rows:
        reason = content.problems[0].reason if content.problems else "holds no rows"
        raise DataError(f"{path}: cannot be used as selections: {reason}.")
    index = index_recordings(recordings["path"])
    ids = dict(zip(recordings["path"], recordings["recording_id"], strict=True))
    known = set(recordings["recording_id"])
    rows: list[tuple[str | None, float, float, float]] = []
    for row in content.rows:
        named = row.recording or ""
        recording_id = named if named in known else ids.get(recording_named(index, named, "").recording or "")
        rows.append((recording_id, row.start_s, row.end_s, _NO_SCORE - len(rows)))
    frame = pd.DataFrame(rows, columns=["recording_id", "start_s", "end_s", "score"])
    return frame, sum(problem.n_rows for problem in content.problems)
